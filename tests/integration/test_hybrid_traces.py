"""Recorded runs of engines with several kinds of attention: what they would reuse, to the token."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
import zmq
from fleet import Publisher, configure, read_trace, running
from kvatlas.v1 import scoring_pb2_grpc
from kvatlas.v1.trust_pb2 import TRUST_STATE_EXACT
from traces import frame_counts, frames_of, parts, request_of

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
    found = []
    with zmq.Context() as context:
        publishers = {pod["name"]: Publisher(context) for pod in fleet["pods"]}
        sources = [
            {"endpoint": publisher.endpoint, "pod": pod, "model": "sim/llama"}
            for pod, publisher in publishers.items()
        ]
        configuration = configure(
            sources=sources, index={"block_size": block_size}, **{"models": [MODEL], **settings}
        )
        async with running(configuration) as service:
            for publisher in publishers.values():
                await publisher.subscribed()
            for line in frames_of(trace):
                publishers[line["pod"]].send(parts(line))
            await service.received(frame_counts(trace, ranks))
            stub = scoring_pb2_grpc.ScoringServiceStub(service.channel)
            for probe in truth["probes"]:
                # The truth is of an engine whose own last token is not left out: ask for one more.
                request = request_of({**probe, "tokens": [*probe["tokens"], 1]}, packed=True)
                answer = await stub.Score(request)
                pods = {pod.pod: pod for pod in answer.pods}
                found += [(probe, of, pods[pod]) for pod, of in probe["expected"].items()]
        for publisher in publishers.values():
            publisher.close()
    return found


@pytest.mark.parametrize("name", EXACT)
def test_a_hybrid_model_is_scored_by_what_its_engine_reuses(name: str) -> None:
    for probe, expected, score in asyncio.run(scores(name, 16)):
        assert score.trust_state == TRUST_STATE_EXACT, score
        assert score.matched_blocks == expected["blocks"], (probe["id"], score)
        assert score.reusable_tokens == expected["hit_tokens"], (probe["id"], score)
        assert score.score == expected["hit_tokens"] / 16
        assert not score.reusable_is_bound


@pytest.mark.parametrize("block_size", [32, 48])
@pytest.mark.parametrize("name", EXACT)
def test_so_it_is_with_blocks_of_another_size_than_the_engine_s(name: str, block_size: int) -> None:
    for _, expected, score in asyncio.run(scores(name, block_size)):
        assert score.trust_state == TRUST_STATE_EXACT, score
        assert score.matched_blocks == expected["blocks"] * 16 // block_size
        assert score.reusable_tokens == expected["hit_tokens"]


def test_an_attention_chunk_that_is_not_configured_leaves_a_bound() -> None:
    found = asyncio.run(scores("vllm-0.33-hybrid-chunked", 16, models=[]))
    for _, expected, score in found:
        assert score.reusable_is_bound
        assert score.matched_blocks == expected["blocks"]
        assert score.reusable_tokens >= expected["hit_tokens"]


def test_groups_of_unequal_block_sizes_are_never_overrated() -> None:
    outcome: Counter[str] = Counter()
    for probe, expected, score in asyncio.run(scores(UNEQUAL, 16)):
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
