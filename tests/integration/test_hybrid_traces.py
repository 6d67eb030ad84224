"""Recorded runs of engines with several kinds of attention: what they would reuse, to the token."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import zmq
from kvatlas.v1 import scoring_pb2_grpc
from kvatlas.v1.trust_pb2 import TRUST_STATE_EXACT
from support.deadlines import DEADLINE_SECONDS
from support.engines.publisher import Publisher
from support.engines.recorded import (
    frame_counts,
    frame_parts,
    frames_of,
    read_trace,
    score_request_of,
)
from support.services.running import RunningService, local_configuration, running_service
from support.stores.servers import StoreProcess

EXACT = [
    "vllm-0.33-hybrid-swa-first",
    "vllm-0.33-hybrid-mamba",
    "vllm-0.33-hybrid-chunked",
    "vllm-0.33-hybrid-two-full",
    "vllm-0.33-hybrid-dp2",
]
UNEQUAL = "vllm-0.33-hybrid-unequal"
MODEL = {"name": "sim/llama", "attention_chunk": 128}


async def scores(name: str, block_size: int, **settings: Any) -> list[tuple[Any, Any, Any]]:
    """Each probe's expectation for each pod, with what is answered for it."""
    trace = read_trace(name)
    fleet, truth = trace[0], trace[-1]
    ranks = {pod["name"]: pod["dp_rank"] for pod in fleet["pods"]}
    with zmq.Context() as context:
        publishers = {pod["name"]: Publisher(context) for pod in fleet["pods"]}
        sources = [
            {"endpoint": publisher.endpoint, "pod": pod, "model": "sim/llama"}
            for pod, publisher in publishers.items()
        ]
        configuration = local_configuration(
            sources=sources, index={"block_size": block_size}, **{"models": [MODEL], **settings}
        )
        async with running_service(configuration) as service:
            for publisher in publishers.values():
                await publisher.until_subscribed()
            for line in frames_of(trace):
                publishers[line["pod"]].send(frame_parts(line))
            await service.until_received(frame_counts(trace, ranks))
            found = await probed(service, truth)
        for publisher in publishers.values():
            publisher.close()
    return found


async def probed(service: RunningService, truth: dict[str, Any]) -> list[tuple[Any, Any, Any]]:
    stub = scoring_pb2_grpc.ScoringServiceStub(service.channel)
    found = []
    for probe in truth["probes"]:
        # The truth is of an engine whose own last token is not left out: ask for one more.
        request = score_request_of({**probe, "tokens": [*probe["tokens"], 1]}, packed=True)
        answer = await stub.Score(request)
        pods = {pod.pod: pod for pod in answer.pods}
        found += [(probe, of, pods[pod]) for pod, of in probe["expected"].items() if pod in pods]
    return found


@pytest.mark.parametrize("name", EXACT)
async def test_a_hybrid_model_is_scored_by_what_its_engine_reuses(name: str) -> None:
    for probe, expected, score in await scores(name, 16):
        assert score.trust_state == TRUST_STATE_EXACT, score
        assert score.matched_blocks == expected["blocks"], (probe["id"], score)
        assert score.reusable_tokens == expected["hit_tokens"], (probe["id"], score)
        assert score.score == expected["hit_tokens"] / 16
        assert not score.reusable_is_bound


@pytest.mark.parametrize("block_size", [32, 48])
@pytest.mark.parametrize("name", EXACT)
async def test_a_hybrid_model_is_scored_so_with_block_sizes_that_are_not_the_engine_s(
    name: str, block_size: int
) -> None:
    for _, expected, score in await scores(name, block_size):
        assert score.trust_state == TRUST_STATE_EXACT, score
        assert score.matched_blocks == expected["blocks"] * 16 // block_size
        assert score.reusable_tokens == expected["hit_tokens"]


async def test_an_attention_chunk_that_is_not_configured_leaves_a_bound() -> None:
    found = await scores("vllm-0.33-hybrid-chunked", 16, models=[])
    for _, expected, score in found:
        assert score.reusable_is_bound
        assert score.matched_blocks == expected["blocks"]
        assert score.reusable_tokens >= expected["hit_tokens"]


async def test_groups_of_unequal_block_sizes_are_never_overrated() -> None:
    outcome: Counter[str] = Counter()
    for probe, expected, score in await scores(UNEQUAL, 16):
        outcome["all"] += 1
        outcome["blocks"] += score.matched_blocks == expected["blocks"]
        outcome["reusable"] += score.reusable_tokens == expected["hit_tokens"]
        outcome["called exact"] += score.trust_state == TRUST_STATE_EXACT
        assert score.reusable_tokens <= expected["hit_tokens"], (probe["id"], score)
        assert score.matched_blocks <= expected["blocks"]
        if score.trust_state == TRUST_STATE_EXACT:
            assert score.reusable_tokens == expected["hit_tokens"], (probe["id"], score)
    print(outcome)
    assert outcome["all"] == 102
    assert outcome["blocks"] >= 90
    assert outcome["reusable"] >= 90


def check(found: list[tuple[Any, Any, Any]]) -> None:
    assert len(found) > 40
    for probe, expected, score in found:
        assert score.matched_blocks == expected["blocks"], (probe["id"], score)
        assert score.reusable_tokens == expected["hit_tokens"], (probe["id"], score)
        assert score.score == expected["hit_tokens"] / 16


@pytest.mark.parametrize("copies", [True, False])
@pytest.mark.parametrize("name", [*EXACT[:3], UNEQUAL])
async def test_the_store_and_every_replica_score_a_hybrid_model_alike(
    redis: StoreProcess, name: str, copies: bool
) -> None:
    trace = read_trace(name)
    source = {"endpoint": "tcp://127.0.0.1:0", "bind": True, "topic": "kv@"}
    store = {"url": redis.url, "namespace": f"hybrid-{name}-{copies}", "copy_blocks": copies}

    def settings(replica: str) -> Any:
        of = {**store, "replica": replica}
        return local_configuration(sources=[source], models=[MODEL], store=of)

    with zmq.Context() as context, ExitStack() as publishers:
        async with running_service(settings("a")) as owner, running_service(settings("b")) as other:
            for pod in {line["pod"] for line in frames_of(trace)}:
                endpoint = owner.application.endpoints[0]
                publisher = publishers.enter_context(closing(Publisher(context, connect=endpoint)))
                await publisher.until_subscribed()
                for line in [line for line in frames_of(trace) if line["pod"] == pod]:
                    publisher.send(frame_parts(line))
            counts = frame_counts(trace, {pod["name"]: 0 for pod in trace[0]["pods"]})
            await owner.until_received(counts)
            last = {worker: count - 1 for worker, count in counts.items()}
            await other.until_applied(last)
            async with asyncio.timeout(DEADLINE_SECONDS):
                while (there := await states(other)) != await states(owner):
                    pass
            assert len(there) == 2
            here = await probed(owner, trace[-1])
            there_found = await probed(other, trace[-1])
            for (_, _, mine), (_, _, theirs) in zip(here, there_found, strict=True):
                same = ("matched_blocks", "reusable_tokens", "score", "reusable_is_bound")
                assert [getattr(mine, at) for at in same] == [getattr(theirs, at) for at in same]
                assert mine.matched_blocks_by_tier == theirs.matched_blocks_by_tier
            if name != UNEQUAL:
                check(there_found)


async def states(service: RunningService) -> dict[tuple[str, int], tuple[int, int]]:
    """The state of each pod, and the last frame applied."""
    pods = await service.pods()
    return {name: (rank.trust_state, rank.last_sequence) for name, rank in pods.items()}


@pytest.mark.parametrize("name", EXACT[:3])
async def test_cache_groups_outlive_a_restart_in_a_snapshot(tmp_path: Path, name: str) -> None:
    trace = read_trace(name)
    ranks = {pod["name"]: pod["dp_rank"] for pod in trace[0]["pods"]}
    with zmq.Context() as context, ExitStack() as stack:
        publishers = {pod: stack.enter_context(closing(Publisher(context))) for pod in ranks}
        sources = [
            {"endpoint": of.endpoint, "pod": pod, "model": "sim/llama"}
            for pod, of in publishers.items()
        ]
        settings = local_configuration(
            sources=sources, models=[MODEL], snapshot={"path": str(tmp_path / "snapshot")}
        )
        async with running_service(settings) as service:
            for publisher in publishers.values():
                await publisher.until_subscribed()
            for line in frames_of(trace):
                publishers[line["pod"]].send(frame_parts(line))
            await service.until_received(frame_counts(trace, ranks))
        async with running_service(settings) as service:
            check(await probed(service, trace[-1]))
            groups = [len(rank.groups) for rank in (await service.pods()).values()]
            assert groups == [2, 2]
