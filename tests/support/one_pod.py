"""A service that one pod speaks to, by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import zmq
from kvatlas.v1 import scoring_pb2, scoring_pb2_grpc

from support.fleet import Publisher, Running, configure, running

MODEL = "sim/model"
TOKENS = list(range(1000, 1000 + 64))


def frame(
    sequence: int, *events: dict[str, Any], topic: str = f"kv@10.0.0.1:8000@{MODEL}"
) -> list[bytes]:
    return [topic.encode(), sequence.to_bytes(8, "big"), msgpack.packb([1.0, list(events), 0])]


def stored(tokens: list[int], first_hash: int = 1, **fields: Any) -> dict[str, Any]:
    count = len(tokens) // 16
    return {
        "type": "BlockStored",
        "block_hashes": list(range(first_hash, first_hash + count)),
        "parent_block_hash": None,
        "token_ids": tokens,
        "block_size": 16,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
        **fields,
    }


def ask(
    tokens: list[int], *images: tuple[str, int, int], **fields: Any
) -> scoring_pb2.ScoreRequest:
    request = scoring_pb2.ScoreRequest(**{"model": MODEL, **fields})
    request.prompt.token_ids.ids.extend(tokens)
    for image, offset, length in images:
        request.prompt.multimodal_items.add(hash=image, offset=offset, length=length)
    return request


async def score(service: Running, request: scoring_pb2.ScoreRequest) -> scoring_pb2.ScoreResponse:
    answer = await scoring_pb2_grpc.ScoringServiceStub(service.channel).Score(request)
    assert isinstance(answer, scoring_pb2.ScoreResponse)
    return answer


async def blocks(service: Running, request: scoring_pb2.ScoreRequest) -> int:
    answer = await score(service, request)
    return {pod.pod: pod.matched_blocks for pod in answer.pods}["10.0.0.1:8000"]


@asynccontextmanager
async def one_pod(**settings: Any) -> AsyncIterator[tuple[Running, Publisher]]:
    """A service, and a publisher it has subscribed to, in bind mode."""
    source = {"endpoint": "tcp://127.0.0.1:0", "bind": True}
    with zmq.Context() as context:
        async with running(configure(**{"sources": [source], **settings})) as service:
            publisher = Publisher(context, connect=service.application.endpoints[0])
            await publisher.subscribed()
            yield service, publisher
            publisher.close()
