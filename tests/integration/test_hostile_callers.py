"""What one caller asks does not keep the others waiting."""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest
from kvatlas.v1 import explain_pb2, routing_pb2, scoring_pb2
from support.paths import ROOT
from support.services.one_pod import MODEL, TOKENS, score_request, service_with_pod
from support.services.process import ServiceProcess

SCORE = "/kvatlas.v1.ScoringService/Score"
SCORE_MANY = "/kvatlas.v1.ScoringService/ScoreMany"
EXPLAIN = "/kvatlas.v1.ExplainService/Explain"
RECORD_ROUTINGS = "/kvatlas.v1.RoutingService/RecordRoutings"
HONEST = score_request(TOKENS).SerializeToString()
HONEST_SECONDS = 0.02


def prompt(tokens: int = 1, pods: int = 0, items: int = 0) -> scoring_pb2.ScoreRequest:
    request = scoring_pb2.ScoreRequest(model=MODEL, pods=[f"pod-{n}" for n in range(pods)])
    request.prompt.packed_token_ids = struct.pack(f"<{tokens}I", *range(tokens))
    for index in range(items):
        offset = tokens // items * index
        request.prompt.multimodal_items.add(hash=f"{index:064}", offset=offset, length=1)
    return request


def attack(name: str) -> tuple[str, bytes]:
    """The method and the request of a hostile call."""
    match name:
        case "many prompts":
            requests = [prompt()] * 400_000
        case "many prompts and pods":
            requests = [prompt(pods=64)] * 12_000
        case "all that is allowed":
            requests = [prompt(tokens=8192, pods=200)] * 220
        case "many pods":
            return SCORE, prompt(pods=500_000).SerializeToString()
        case "many items":
            request = prompt()
            request.prompt.multimodal_items.extend([scoring_pb2.MultimodalItem()] * 600_000)
            return SCORE, request.SerializeToString()
        case "a long prompt of many images":
            return SCORE, prompt(tokens=2**20, items=4096).SerializeToString()
        case "JSON of many values":
            request = scoring_pb2.ScoreRequest(model=MODEL)
            request.prompt.chat_completion = "[" + "[]," * 2_700_000 + "[]]"
            return SCORE, request.SerializeToString()
        case _:
            return attack_on_other_methods(name)
    return SCORE_MANY, scoring_pb2.ScoreManyRequest(requests=requests).SerializeToString()


def attack_on_other_methods(name: str) -> tuple[str, bytes]:
    match name:
        case "a long prompt to explain":
            explained = explain_pb2.ExplainRequest(score=prompt(tokens=2**20, items=64, pods=200))
            return EXPLAIN, explained.SerializeToString()
        case "handles that nobody gave":
            one = routing_pb2.RecordRoutingRequest(handle=bytes(64), pod="pod")
            many = routing_pb2.RecordRoutingsRequest(requests=[one] * 10_000)
            return RECORD_ROUTINGS, many.SerializeToString()
        case _:
            raise ValueError(name)


async def call(channel: grpc.aio.Channel, method: str, raw: bytes, timeout: float) -> str:
    """The status of a call."""
    made: Any = channel.unary_unary(method)
    try:
        await made(raw, timeout=timeout)
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def test_short_calls_are_answered_while_long_ones_are_under_way() -> None:
    method, raw = attack("all that is allowed")
    async with service_with_pod(models=[{"name": MODEL}]) as (service, _):
        long = [asyncio.create_task(call(service.channel, method, raw, 120)) for _ in range(10)]
        answered = 0
        async with own_channel(service.application.addresses[0]) as channel:
            while not any(one.done() for one in long):
                assert await call(channel, SCORE, HONEST, 120) == "OK"
                answered += 1
        assert Counter(await asyncio.gather(*long)) == {"OK": 10}
    # Each long call alone takes longer than ten short ones.
    assert answered > 10


def own_channel(address: str) -> grpc.aio.Channel:
    """A channel with a connection of its own."""
    return grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])


async def attacked(address: str, name: str, seconds: float) -> None:
    """Make a hostile call twenty times at once, again and again."""
    method, raw = attack(name)
    print("ready", flush=True)

    async def repeat() -> None:
        async with own_channel(address) as channel:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                await call(channel, method, raw, seconds)

    await asyncio.gather(*(repeat() for _ in range(20)))


async def honest_answers(address: str, seconds: float) -> Counter[str]:
    """Statuses of honest calls, a hundred a second, each with a deadline of 20 ms."""
    async with grpc.aio.insecure_channel(address) as channel:
        assert await call(channel, SCORE, HONEST, 60) == "OK"
        calls = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            calls.append(asyncio.create_task(call(channel, SCORE, HONEST, HONEST_SECONDS)))
            await asyncio.sleep(0.01)
        return Counter(await asyncio.gather(*calls))


@pytest.mark.soak
@pytest.mark.parametrize(
    "name",
    [
        "many prompts",
        "many prompts and pods",
        "all that is allowed",
        "many pods",
        "many items",
        "a long prompt of many images",
        "a long prompt to explain",
        "handles that nobody gave",
        "JSON of many values",
    ],
)
def test_honest_callers_are_answered_in_time_beside_hostile_ones(name: str, tmp_path: Path) -> None:
    configuration = tmp_path / "kvatlas.toml"
    configuration.write_text(f'[[models]]\nname = "{MODEL}"\n')
    service = ServiceProcess("--config", str(configuration))
    hostile = subprocess.Popen(
        [sys.executable, "-P", __file__, service.address, name],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
    )
    try:
        assert hostile.stdout is not None
        assert hostile.stdout.readline()
        ended = asyncio.run(honest_answers(service.address, 10))
        print(name, dict(ended))
        assert ended["OK"] >= 0.99 * ended.total()
    finally:
        hostile.terminate()
        hostile.communicate()
        service.stop()


if __name__ == "__main__":
    asyncio.run(attacked(sys.argv[1], sys.argv[2], 60))
