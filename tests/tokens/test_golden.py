"""Requests recorded with the token ids that vLLM's own renderer computed for them."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from kvatlas.v1 import tokenization_pb2, tokenization_pb2_grpc
from support.models.fetched import model_files
from support.paths import DATA
from support.services.running import local_configuration, running_service


def cases(model: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / "tokens" / f"{model}.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize(("model", "count"), [("qwen3", 200), ("deepseek_v3", 160)])
async def test_every_recorded_request_becomes_the_engines_tokens(model: str, count: int) -> None:
    files = model_files(model)
    models = [{"name": model, "tokenizer": str(files)}]
    async with running_service(local_configuration(models=models)) as service:
        stub = tokenization_pb2_grpc.TokenizationServiceStub(service.channel)
        for number, case in enumerate(cases(model)):
            request = tokenization_pb2.TokenizeRequest(model=model)
            body = json.dumps(case["request"])
            if case["kind"] == "chat":
                request.chat_completion = body
            else:
                request.completion = body
            answer = await stub.Tokenize(request)
            assert list(answer.token_ids) == case["token_ids"], (number, body)
    assert len(cases(model)) == count
