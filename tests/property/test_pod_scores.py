"""Answers as the kernel writes them are those of the generated classes."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st
from kvatlas.v1 import scoring_pb2

from indexer import CacheLayout, MemoryPrefixMatch, TrustState, TrustStatus, Worker
from indexer.memory import Walk, WalkedWorker
from service.kernel import PodScoreWriter
from service.rpc.trust_states import TRUST_STATES

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK_SIZE = 16
TIERS = ["gpu", "cpu", "", "ä" * 70]
counts = st.sampled_from([0, 1, 2, 3, 127, 128, 70_000])
statuses = st.builds(
    TrustStatus,
    st.sampled_from(TrustState),
    st.sampled_from(["", "joined_late", "x" * 300]),
    st.none() | st.just(0.0) | st.floats(0, 1e9),
    st.none() | st.just(0) | st.integers(0, 2**64 - 1),
)
names = st.sampled_from(["a:1", "b:1", "10.0.0.1:8000", "ü", "p" * 200])


@st.composite
def matches(draw: st.DrawFn) -> MemoryPrefixMatch:
    """A match of a few pods with a few ranks each, by one walk or by two."""
    sizes = draw(st.sampled_from([[0], [0, 8]]))
    pods: dict[str, list[WalkedWorker]] = {}
    number = 0
    for pod in draw(st.lists(names, unique=True)):
        for rank in range(draw(st.integers(1, 3))):
            layout = CacheLayout(draw(st.sampled_from(sizes)), speculative=draw(st.booleans()))
            pods.setdefault(pod, []).append(WalkedWorker(Worker(pod, rank), number, layout))
            number += 1
    walks = {}
    for size in sizes:
        ratio = 2 if size else 1
        matched = [draw(counts) for _ in range(number)]
        scores = [draw(st.sampled_from([0.0, 0.4, 1.5])) * (blocks >= ratio) for blocks in matched]
        walks[size] = Walk(
            array("I", matched),
            array("d", scores),
            array("I", [draw(counts) for _ in range(number * len(TIERS))]),
            array("I", [draw(counts) for _ in range(number)]),
            size or BLOCK_SIZE,
            ratio,
        )
    return MemoryPrefixMatch(pods, TIERS, walks)


class OtherMatch:
    """The same match, as an index with another representation would answer."""

    def __init__(self, match: MemoryPrefixMatch) -> None:
        self.best_of = match.best_of


def looked_up(status: dict[Worker, TrustStatus]) -> Callable[[Worker, float], TrustStatus]:
    return lambda worker, _: status[worker]


def naive(
    match: Any, pods: list[str], status: dict[Worker, TrustStatus], holders: bool, most: int
) -> tuple[scoring_pb2.ScoreResponse, int, TrustState | None]:
    """The pods of an answer, made with the generated classes."""
    response = scoring_pb2.ScoreResponse()
    found = [match.best_of(pod) for pod in pods if match.best_of(pod) is not None]
    response.unknown_pods.extend(pod for pod in pods if match.best_of(pod) is None)
    if holders:
        found = [best for best in found if best.matched_blocks]
    if most:
        order = sorted(
            range(len(found)), key=lambda i: (-found[i].score, -found[i].matched_blocks, i)
        )
        found = [found[i] for i in order[:most]]
    longest, trusted = 0, None
    for best in found:
        state, reason, silent, as_of = status[best.worker]
        score = response.pods.add(
            pod=best.worker.pod,
            rank=best.worker.rank,
            trust_state=TRUST_STATES[state],
            trust_reason=reason,
            silent_seconds=silent,
            as_of_sequence=as_of,
            reusable_tokens=best.reusable_tokens,
            reusable_is_bound=best.reusable_is_bound,
        )
        if best.matched_blocks:
            score.score = best.score
            score.matched_blocks = best.matched_blocks
            score.matched_tokens = best.matched_blocks * BLOCK_SIZE
            score.matched_blocks_by_tier.update(best.by_tier)
            if best.matched_blocks > longest:
                longest, trusted = best.matched_blocks, state
    return response, longest, trusted


@given(
    match=matches(),
    named=st.lists(names, unique=True) | st.none(),
    data=st.data(),
    holders=st.booleans(),
    most=st.sampled_from([0, 0, 1, 2, 10]),
    other=st.booleans(),
)
def test_an_answer_is_what_the_generated_classes_would_write(
    match: MemoryPrefixMatch,
    named: list[str] | None,
    data: st.DataObject,
    holders: bool,
    most: int,
    other: bool,
) -> None:
    writer = PodScoreWriter(TRUST_STATES)
    pods = list(match.pods) if named is None else named
    asked: Any = OtherMatch(match) if other else match
    workers = [rank.worker for ranks in match.pods.values() for rank in ranks]
    for _ in range(2):  # the second time some of it is remembered
        status = {worker: data.draw(statuses) for worker in workers}
        written = writer.write(asked, pods, looked_up(status), 0.0, BLOCK_SIZE, holders, most)
        expected, longest, trusted = naive(match, pods, status, holders, most)
        answer = scoring_pb2.ScoreResponse.FromString(written.encoded)
        answer.unknown_pods.extend(written.unknown)
        assert answer == expected
        assert (written.longest, written.trust_state) == (longest, trusted)
