"""Chats of millions of characters, and the small ones beside them, with a real tokenizer."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest
from kvatlas.v1 import scoring_pb2, scoring_pb2_grpc, tokenization_pb2, tokenization_pb2_grpc
from support.models.fetched import model_files
from support.services.running import RunningService, local_configuration, running_service

from tokenization import Drop

MODEL = "qwen3"
TEXT = "The quick brown fox jumps over the lazy dog, and 12345 times so. "
SMALL = json.dumps({"messages": [{"role": "user", "content": "hi"}]})
LARGE = json.dumps({"messages": [{"role": "user", "content": TEXT * 4}] * 24_000})


async def ids(service: RunningService, body: str) -> list[int]:
    stub = tokenization_pb2_grpc.TokenizationServiceStub(service.channel)
    request = tokenization_pb2.TokenizeRequest(model=MODEL, chat_completion=body)
    return list((await stub.Tokenize(request)).token_ids)


async def test_small_chats_are_answered_while_many_large_ones_wait() -> None:
    assert len(LARGE) > 6_500_000
    models = [{"name": MODEL, "tokenizer": str(model_files(MODEL))}]
    async with running_service(local_configuration(models=models)) as service:
        queue = service.application.tokenizers.queue
        alone = await ids(service, SMALL)
        scoring = scoring_pb2_grpc.ScoringServiceStub(service.channel)
        request = scoring_pb2.ScoreRequest(model=MODEL)
        request.prompt.chat_completion = LARGE
        large = [asyncio.ensure_future(scoring.Score(request)) for _ in range(16)]
        answered = 0
        while answered < 20 or len(queue.pending) < 5:
            assert await ids(service, SMALL) == alone
            answered += 1
        done = [call for call in large if call.done()]
        refused = queue.counts.dropped[Drop.QUEUE_BYTES]
        assert len(done) <= refused + 6
        assert queue.pending_bytes <= 64 * 2**20
        waiting, threads = len(queue.pending), 2
        for call in large:
            call.cancel()
        while queue.running or queue.pending:
            assert await ids(service, SMALL) == alone
        # A thread may still take one before the cancellation arrives.
        assert queue.counts.dropped[Drop.CANCELLED] >= waiting - threads


async def test_a_large_request_that_is_no_json_is_refused_as_a_small_one_is() -> None:
    models = [{"name": MODEL, "tokenizer": str(model_files(MODEL))}]
    async with running_service(local_configuration(models=models)) as service:
        for body, words in (("{" + " " * 100_000, "not JSON"), (f"[{'1,' * 49_999}1]", "object")):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await ids(service, body)
            assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert words in str(raised.value.details())
