"""A service that listens to one pod, whose frames a test writes by hand."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgpack
import zmq
from kvatlas.v1 import scoring_pb2, scoring_pb2_grpc

from support.engines.publisher import Publisher
from support.services.running import RunningService, local_configuration, running_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

POD = "10.0.0.1:8000"
MODEL = "sim/model"
TOKENS = list(range(1000, 1000 + 64))
"""A prompt of four blocks of 16 tokens."""


def frame(sequence: int, *events: dict[str, Any], topic: str = f"kv@{POD}@{MODEL}") -> list[bytes]:
    """The message that carries these events."""
    return [topic.encode(), sequence.to_bytes(8, "big"), msgpack.packb([1.0, list(events), 0])]


def block_stored(tokens: list[int], first_hash: int = 1, **fields: Any) -> dict[str, Any]:
    """The event that stores blocks of 16 tokens, with consecutive engine hashes."""
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


def score_request(
    tokens: list[int], *images: tuple[str, int, int], **fields: Any
) -> scoring_pb2.ScoreRequest:
    """The request that asks about these tokens; images as (hash, offset, length)."""
    request = scoring_pb2.ScoreRequest(**{"model": MODEL, **fields})
    request.prompt.token_ids.ids.extend(tokens)
    for image, offset, length in images:
        request.prompt.multimodal_items.add(hash=image, offset=offset, length=length)
    return request


async def score(
    service: RunningService, request: scoring_pb2.ScoreRequest
) -> scoring_pb2.ScoreResponse:
    """The answer of the service to a request."""
    answer = await scoring_pb2_grpc.ScoringServiceStub(service.channel).Score(request)
    assert isinstance(answer, scoring_pb2.ScoreResponse)
    return answer


async def matched_blocks(service: RunningService, request: scoring_pb2.ScoreRequest) -> int:
    """How many leading blocks of a prompt the pod holds, as the service says."""
    answer = await score(service, request)
    return {pod.pod: pod.matched_blocks for pod in answer.pods}[POD]


class Pods:
    """Pods that publish frame after frame, all through one connection."""

    def __init__(self, service: RunningService, publisher: Publisher) -> None:
        self.service = service
        self._publisher = publisher
        self._next: dict[str, int] = {}

    async def publish(self, *events: dict[str, Any], pod: str = POD, model: str = MODEL) -> None:
        """Publish one frame, and wait until it is applied."""
        sequence = self._next.get(pod, 0)
        self._next[pod] = sequence + 1
        self._publisher.send(frame(sequence, *events, topic=f"kv@{pod}@{model}"))
        await self.service.until_applied({(pod, 0): sequence})


@asynccontextmanager
async def service_with_pod(**settings: Any) -> AsyncIterator[tuple[RunningService, Publisher]]:
    """A service that binds its event endpoint, and a publisher that has connected to it."""
    configuration = local_configuration(
        **{"sources": [{"endpoint": "tcp://127.0.0.1:0", "bind": True}], **settings}
    )
    with zmq.Context() as context:
        async with running_service(configuration) as service:
            publisher = Publisher(context, connect=service.application.endpoints[0])
            await publisher.until_subscribed()
            yield service, publisher
            publisher.close()
