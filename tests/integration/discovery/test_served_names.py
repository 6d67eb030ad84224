"""Callers name what engines serve: an adapter, or another name of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from kvatlas.v1 import tokenization_pb2, tokenization_pb2_grpc
from support.engines.model_server import MODEL, ModelServer, block_stored, model_server, models_of
from support.models.trained import write_tokenizer
from support.services.one_pod import TOKENS, score, score_request
from support.services.running import RunningService, local_configuration, running_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with model_server() as server:
        names = models_of("vllm", MODEL, "short-name", adapters=("sql",))
        server.answers["/v1/models"] = (200, names)
        yield server


def discovering(server: ModelServer, **settings: Any) -> Any:
    discovery = {"pods": [server.url]}
    return running_service(local_configuration(discovery=discovery, **settings))


async def publish(service: RunningService, server: ModelServer, adapter: str | None) -> None:
    await server.ranks[0].publisher.until_subscribed()
    sequence = server.ranks[0].publish({**block_stored(TOKENS), "lora_name": adapter})
    await service.until_applied({(server.pod, 0): sequence})


async def test_a_model_is_known_by_each_of_its_names(server: ModelServer) -> None:
    async with discovering(server) as service:
        await publish(service, server, None)
        for name, blocks in ((MODEL, 4), ("short-name", 4), ("sql", 0)):
            answer = await score(service, score_request(TOKENS, model=name))
            assert [pod.matched_blocks for pod in answer.pods] == [blocks], name


async def test_an_adapter_s_name_stands_for_the_model_with_the_adapter(
    server: ModelServer,
) -> None:
    async with discovering(server) as service:
        await publish(service, server, "sql")
        asked = [
            score_request(TOKENS, model=name, lora_name=adapter)
            for name, adapter in (
                ("sql", ""),
                ("sql", "sql"),
                (MODEL, "sql"),
                ("short-name", "sql"),
            )
        ]
        for request in asked:
            answer = await score(service, request)
            assert [pod.matched_blocks for pod in answer.pods] == [4], request.model
        with pytest.raises(grpc.aio.AioRpcError, match="is an adapter itself") as raised:
            await score(service, score_request(TOKENS, model="sql", lora_name="other"))
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError, match="no pod serves model"):
            await score(service, score_request(TOKENS, model="unheard"))


async def test_the_tokenizer_is_found_where_the_engine_has_its_model_from(
    server: ModelServer, tmp_path: Path
) -> None:
    folder = tmp_path / "org" / "model-8b"
    folder.mkdir(parents=True)
    write_tokenizer(folder)
    server.answers["/v1/models"][1]["data"][0]["root"] = "org/model-8b"
    async with discovering(server, tokenization={"directories": [str(tmp_path)]}) as service:
        stub = tokenization_pb2_grpc.TokenizationServiceStub(service.channel)
        answers = [
            await stub.Tokenize(tokenization_pb2.TokenizeRequest(model=name, text="hello"))
            for name in (MODEL, "short-name", "sql")
        ]
        assert answers[0].token_ids
        assert all(answer == answers[0] for answer in answers)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Tokenize(tokenization_pb2.TokenizeRequest(model="unheard", text="hello"))
        assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
