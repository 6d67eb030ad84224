"""What a caller may ask: bounds of a request, malformed requests, and what is said of them."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from kvatlas.compat import tokenization_pb2 as compat
from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc, scoring_pb2, scoring_pb2_grpc, tokenization_pb2
from support.deadlines import DEADLINE_SECONDS
from support.engines.publisher import Publisher
from support.refusals import refusal
from support.services.one_pod import (
    MODEL,
    POD,
    TOKENS,
    block_stored,
    frame,
    matched_blocks,
    score,
    score_request,
)
from support.services.running import RunningService

SCORE = "kvatlas.v1.ScoringService/Score"
SCORE_MANY = "kvatlas.v1.ScoringService/ScoreMany"
TOKENIZE = "kvatlas.v1.TokenizationService/Tokenize"
INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
KNOWN_MODEL = pytest.mark.settings(models=[{"name": MODEL}])


def raw_call(service: RunningService, method: str, raw: bytes) -> Any:
    """A call with the given bytes as its request."""
    call: Any = service.channel_of(method).unary_unary(f"/{method}")
    return call(raw)


def many(*requests: scoring_pb2.ScoreRequest) -> bytes:
    return scoring_pb2.ScoreManyRequest(requests=requests).SerializeToString()


def prompt_of(tokens: int, **fields: Any) -> scoring_pb2.ScoreRequest:
    request = scoring_pb2.ScoreRequest(**{"model": MODEL, **fields})
    request.prompt.packed_token_ids = struct.pack(f"<{tokens}I", *range(tokens))
    return request


def with_items(count: int) -> scoring_pb2.ScoreRequest:
    request = prompt_of(1)
    request.prompt.multimodal_items.extend([scoring_pb2.MultimodalItem(hash="h")] * count)
    return request


@pytest.mark.settings(
    models=[{"name": MODEL}],
    limits={"prompts": 3, "call_tokens": 300, "pods": 4, "multimodal_items": 5, "name_bytes": 20},
)
@pytest.mark.parametrize(
    ("method", "raw", "limit"),
    [
        (SCORE_MANY, many(*[prompt_of(1)] * 4), "prompts"),
        (SCORE_MANY, many(prompt_of(200), prompt_of(101)), "call_tokens"),
        (SCORE_MANY, many(*[prompt_of(1)] * 400_000), "prompts"),
        (SCORE, prompt_of(1, pods=["p"] * 500_000).SerializeToString(), "pods"),
        (SCORE, with_items(600_000).SerializeToString(), "multimodal_items"),
        (SCORE, with_items(6).SerializeToString(), "multimodal_items"),
        (SCORE, prompt_of(1, pods=["p" * 21]).SerializeToString(), "name_bytes"),
        (SCORE, prompt_of(1, lora_name="p" * 21).SerializeToString(), "name_bytes"),
        (SCORE, prompt_of(1, cache_salt="é" * 11).SerializeToString(), "name_bytes"),
    ],
)
async def test_a_request_beyond_a_limit_is_refused_by_the_limit_s_name(
    service: RunningService, method: str, raw: bytes, limit: str
) -> None:
    found = await refusal(raw_call(service, method, raw))
    assert (found.code, found.reason) == (EXHAUSTED, "LIMIT_EXCEEDED")
    assert found.metadata == {"limit": f"limits.{limit}"}
    assert f"(limits.{limit})" in found.text


@pytest.mark.settings(models=[{"name": MODEL}], limits={"pods": 4})
async def test_one_prompt_beyond_a_limit_does_not_cost_the_others(service: RunningService) -> None:
    stub = scoring_pb2_grpc.ScoringServiceStub(service.channel)
    prompts = [prompt_of(1), prompt_of(2, pods=["p"] * 5), prompt_of(3)]
    answer = await stub.ScoreMany(scoring_pb2.ScoreManyRequest(requests=prompts))
    assert [one.total_tokens for one in answer.responses] == [1, 0, 3]
    ((index, error),) = answer.errors.items()
    assert (index, error.code) == (1, EXHAUSTED.value[0])
    assert (error.reason, error.limit) == ("LIMIT_EXCEEDED", "limits.pods")


@pytest.mark.settings(
    models=[{"name": MODEL}], limits={"prompts": 3, "call_tokens": 300, "pods": 4}
)
async def test_a_request_at_all_limits_is_answered(service: RunningService) -> None:
    stub = scoring_pb2_grpc.ScoringServiceStub(service.channel)
    request = scoring_pb2.ScoreManyRequest(requests=[prompt_of(100, pods=list("abcd"))] * 3)
    answer = await stub.ScoreMany(request)
    assert [one.total_tokens for one in answer.responses] == [100] * 3
    assert list(answer.responses[2].unknown_pods) == list("abcd")


@pytest.mark.settings(models=[{"name": MODEL}], limits={"answer_bytes": 2048})
async def test_an_answer_beyond_the_limit_is_refused(service: RunningService) -> None:
    pods = [f"10.0.0.{number}:8000" for number in range(40)]
    await score(service, prompt_of(1, pods=pods))
    for call in (
        raw_call(service, SCORE_MANY, many(*[prompt_of(1, pods=pods)] * 10)),
        raw_call(
            service,
            SCORE,
            prompt_of(1, pods=pods * 3 + [f"p{n}" * 9 for n in range(120)]).SerializeToString(),
        ),
    ):
        found = await refusal(call)
        assert (found.code, found.metadata) == (EXHAUSTED, {"limit": "limits.answer_bytes"})


async def test_a_pod_that_is_named_twice_is_answered_once(
    service: RunningService, pod: Publisher
) -> None:
    pod.send(frame(0, block_stored(TOKENS)))
    await service.until_applied({(POD, 0): 0})
    answer = await score(service, score_request(TOKENS, pods=[POD, "x", POD, "y", "x", POD]))
    assert [one.pod for one in answer.pods] == [POD]
    assert list(answer.unknown_pods) == ["x", "y"]


async def test_a_long_prompt_is_scored_in_slices_as_at_once_and_many_pods_too(
    service: RunningService, pod: Publisher
) -> None:
    tokens = [number % 128_000 for number in range(100_003)]
    pod.send(frame(0, block_stored(tokens[:90_000], cache_salt="s")))
    await service.until_applied({(POD, 0): 0})
    pods = [*(f"unknown {number}" for number in range(700)), POD]
    request = score_request(tokens, pods=pods, cache_salt="s")
    answer = await score(service, request)
    assert [(one.pod, one.matched_blocks) for one in answer.pods] == [(POD, 5625)]
    assert list(answer.unknown_pods) == pods[:-1]


@pytest.mark.parametrize(
    "method",
    [
        SCORE,
        SCORE_MANY,
        TOKENIZE,
        "kvatlas.v1.FleetService/ListPods",
        "kvatlas.v1.FleetService/ForgetPod",
        "tokenization.TokenizationService/Tokenize",
        "tokenization.TokenizationService/RenderChatCompletion",
    ],
)
@pytest.mark.parametrize("raw", [b"\x0a\xff", b"\x0a\x03\xed\xa0\x80", b"\xff" * 11, b"\x0f"])
async def test_bytes_that_cannot_be_decoded_are_an_invalid_argument(
    service: RunningService, method: str, raw: bytes
) -> None:
    found = await refusal(raw_call(service, method, raw))
    assert (found.code, found.reason) == (INVALID, "REQUEST_UNDECODABLE")


@KNOWN_MODEL
@pytest.mark.parametrize("field", ["model", "pods", "lora_name", "cache_salt"])
async def test_a_lone_surrogate_in_a_field_is_an_invalid_argument(
    service: RunningService, field: str
) -> None:
    given: Any = {"model": MODEL, field: ["abc"] if field == "pods" else "abc"}
    request = prompt_of(1, **given)
    raw = request.SerializeToString().replace(b"\x03abc", b"\x03\xed\xa0\x80")
    assert (await refusal(raw_call(service, SCORE, raw))).code is INVALID


@KNOWN_MODEL
@pytest.mark.parametrize("body", [{"cache_salt": "\ud800"}, {"messages": "\udc00"}])
async def test_a_lone_surrogate_in_a_body_is_an_invalid_argument(
    service: RunningService, body: dict[str, str]
) -> None:
    request = scoring_pb2.ScoreRequest(model=MODEL)
    request.prompt.chat_completion = json.dumps(body)
    found = await refusal(raw_call(service, SCORE, request.SerializeToString()))
    assert (found.code, found.reason) == (INVALID, "REQUEST_INVALID")
    assert "surrogate" in found.text


@pytest.mark.settings(models=[{"name": MODEL}], limits={"json_values": 1_000})
async def test_a_body_of_too_many_values_is_refused_unread(service: RunningService) -> None:
    request = scoring_pb2.ScoreRequest(model=MODEL)
    request.prompt.chat_completion = "[" + "[]," * 1_000 + "[]]"
    found = await refusal(raw_call(service, SCORE, request.SerializeToString()))
    assert found.metadata == {"limit": "limits.json_values"}


@pytest.mark.settings(
    models=[{"name": f"model-{number:03}"} for number in range(200)],
    tokenization={"directories": ["/"]},
)
@pytest.mark.parametrize("name", ["x" * 300, "x" * 20_000, "\x1b[2J" * 1000, "é" * 20_000])
async def test_a_long_or_odd_model_name_is_answered_shortly(
    service: RunningService, name: str
) -> None:
    unknown = prompt_of(1, model=name).SerializeToString()
    found = await refusal(raw_call(service, SCORE, unknown))
    assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_UNKNOWN")
    assert found.text.isprintable()
    assert len(found.text.encode()) <= 1024
    tokenize = tokenization_pb2.TokenizeRequest(model=name, text="x").SerializeToString()
    found = await refusal(raw_call(service, TOKENIZE, tokenize))
    assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_UNKNOWN")
    assert len(found.text.encode()) <= 1024
    raw = compat.TokenizeRequest(input="x", model_name=name).SerializeToString()
    answer = await raw_call(service, "tokenization.TokenizationService/Tokenize", raw)
    response = compat.TokenizeResponse.FromString(answer)
    assert not response.success
    assert response.error_message.isprintable()
    assert len(response.error_message.encode()) <= 1024


@pytest.mark.settings(models=[{"name": f"model-{number:03}"} for number in range(200)])
async def test_a_misspelled_model_is_told_of_the_one_that_was_meant(
    service: RunningService,
) -> None:
    raw = prompt_of(1, model="model-123x").SerializeToString()
    found = await refusal(raw_call(service, SCORE, raw))
    assert "200 models are known; did you mean 'model-123'" in found.text


async def test_a_misspelled_pod_is_told_of_the_one_that_was_meant(
    service: RunningService, pod: Publisher
) -> None:
    pod.send(frame(0, block_stored(TOKENS)))
    await service.until_applied({(POD, 0): 0})
    stub: Any = fleet_pb2_grpc.FleetServiceStub(service.admin)
    for call in (
        stub.ForgetPod(fleet_pb2.ForgetPodRequest(pod=POD[:-1])),
        stub.ResyncPod(fleet_pb2.ResyncPodRequest(pod=POD[:-1])),
    ):
        found = await refusal(call)
        assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "POD_UNKNOWN")
        assert f"did you mean '{POD}'" in found.text


async def recording(service: RunningService, tenant: str) -> Any:
    """A call that stays under way."""
    stub: Any = fleet_pb2_grpc.FleetServiceStub(service.admin)
    metadata = (("x-tenant", tenant),) if tenant else ()
    call = stub.RecordFrames(fleet_pb2.RecordFramesRequest(), metadata=metadata)
    await call.initial_metadata()
    return call


async def has_room(service: RunningService) -> bool:
    try:
        await service.pods()
    except grpc.aio.AioRpcError as error:
        assert error.code() is EXHAUSTED
        return False
    return True


def next_message(call: Any) -> Any:
    return asyncio.ensure_future(call.read())


@pytest.mark.settings(limits={"concurrent_calls": 2})
async def test_calls_beyond_those_that_may_be_under_way_are_refused_until_one_ends(
    service: RunningService, pod: Publisher
) -> None:
    pod.send(frame(0, block_stored(TOKENS)))
    await service.until_applied({(POD, 0): 0})
    calls = [await recording(service, "") for _ in range(2)]
    found = await refusal(next_message(await recording(service, "")))
    assert (found.code, found.reason) == (EXHAUSTED, "TOO_MANY_CALLS")
    assert found.metadata == {"limit": "limits.concurrent_calls"}
    # Other services have a share of their own.
    assert await matched_blocks(service, score_request(TOKENS)) == 4
    health: Any = health_pb2_grpc.HealthStub(service.channel)
    await health.Check(health_pb2.HealthCheckRequest())
    calls.pop().cancel()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await has_room(service):
            pass
    for call in calls:
        call.cancel()


@pytest.mark.settings(limits={"tenant_key": "x-tenant", "concurrent_calls_per_tenant": 1})
async def test_a_tenant_at_its_limit_does_not_hold_others_up(
    service: RunningService, pod: Publisher
) -> None:
    calls = [await recording(service, name) for name in ("a", "b", "", "")]
    found = await refusal(next_message(await recording(service, "a")))
    assert found.metadata == {"limit": "limits.concurrent_calls_per_tenant"}
    for call in calls:
        call.cancel()
