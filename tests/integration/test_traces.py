"""Recorded runs of real engines, replayed over real sockets, score exactly as they truly were."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import Any

import pytest
import zmq
from kvatlas.v1 import scoring_pb2_grpc
from kvatlas.v1.trust_pb2 import TRUST_STATE_EXACT
from support.engines.publisher import Publisher
from support.engines.recorded import (
    frame_counts,
    frame_parts,
    frames_of,
    read_trace,
    score_request_of,
)
from support.services.running import local_configuration, running_service

TRACES = ["vllm-0.33-plain", "vllm-0.23-arrays", "sglang-0.5.23-plain"]
FURTHER = ["vllm-0.33-cpu-tier", "vllm-0.33-restart-reset"]
BLOCK_SIZES = [16, 32, 64, 48]  # the engines' own, and larger ones of ours


async def check_probes(channel: Any, truth: dict[str, Any], block_size: int) -> int:
    stub = scoring_pb2_grpc.ScoringServiceStub(channel)
    checked = 0
    for number, probe in enumerate(truth["probes"]):
        answer = await stub.Score(score_request_of(probe, packed=number % 2 == 0))
        assert answer.total_tokens == len(probe["tokens"])
        assert answer.total_blocks == len(probe["tokens"]) // block_size
        pods = {score.pod: score for score in answer.pods}
        for pod, expected in probe["expected"].items():
            score = pods[pod]
            assert score.trust_state == TRUST_STATE_EXACT, score
            by_tier = dict(score.matched_blocks_by_tier)
            want = expected["blocks"] * 16 // block_size
            assert by_tier.get("gpu", 0) == want, (probe["id"], pod)
            if "any_tier_blocks" in expected:
                assert score.matched_blocks == expected["any_tier_blocks"] * 16 // block_size
                assert by_tier.get("cpu", 0) == expected["cpu_blocks"] * 16 // block_size
            else:
                assert score.matched_blocks == want
                assert score.score == want
                assert score.matched_tokens == want * block_size
            checked += 1
    return checked


async def replay_connected(name: str, block_size: int) -> None:
    """Each pod has a publisher of its own, and the configuration says who it is."""
    trace = read_trace(name)
    fleet, truth = trace[0], trace[-1]
    with zmq.Context() as context:
        publishers = {pod["name"]: Publisher(context) for pod in fleet["pods"]}
        sources = [
            {"endpoint": publisher.endpoint, "pod": pod, "model": "sim/llama"}
            for pod, publisher in publishers.items()
        ]
        async with running_service(
            local_configuration(sources=sources, index={"block_size": block_size})
        ) as service:
            for publisher in publishers.values():
                await publisher.until_subscribed()
            for line in frames_of(trace):
                publishers[line["pod"]].send(frame_parts(line))
            ranks = {pod["name"]: pod["dp_rank"] for pod in fleet["pods"]}
            await service.until_received(frame_counts(trace, ranks))
            checked = await check_probes(service.channel, truth, block_size)
            assert checked == sum(len(probe["expected"]) for probe in truth["probes"])
        for publisher in publishers.values():
            publisher.close()


async def replay_bound(name: str) -> None:
    """All pods connect to one endpoint, and their topics say who they are."""
    trace = read_trace(name)
    source = {"endpoint": "tcp://127.0.0.1:0", "bind": True, "topic": "kv@"}
    with zmq.Context() as context, ExitStack() as publishers:
        async with running_service(local_configuration(sources=[source])) as service:
            endpoint = service.application.endpoints[0]
            for pod in trace[0]["pods"]:
                publisher = publishers.enter_context(closing(Publisher(context, connect=endpoint)))
                await publisher.until_subscribed()
                mine = [line for line in frames_of(trace) if line["pod"] == pod["name"]]
                for line in mine:
                    publisher.send(frame_parts(line))
                await service.until_received({(pod["name"], 0): len(mine)})
            await check_probes(service.channel, trace[-1], 16)


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("name", [*TRACES, *FURTHER])
async def test_connected_pods_score_as_they_truly_were(name: str, block_size: int) -> None:
    await replay_connected(name, block_size)


@pytest.mark.parametrize("name", [*TRACES, "vllm-0.33-cpu-tier", "vllm-0.33-restart-reset"])
async def test_pods_that_connect_score_as_they_truly_were(name: str) -> None:
    await replay_bound(name)


def test_the_traces_hold_salted_multimodal_adapted_and_long_prompts() -> None:
    probes = [probe for name in TRACES for probe in read_trace(name)[-1]["probes"]]
    assert sum(1 for probe in probes if probe["cache_salt"]) >= 10
    assert sum(1 for probe in probes if probe["mm"]) >= 5
    assert sum(1 for probe in probes if probe["lora_name"]) >= 40
    assert sum(1 for p in probes for e in p["expected"].values() if e["blocks"] > 10) >= 50
