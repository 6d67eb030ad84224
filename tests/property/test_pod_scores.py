"""Answers as the kernel writes them are those of the generated classes."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st
from kvatlas.v1 import scoring_pb2

from indexer import (
    CacheLayout,
    MemoryPrefixMatch,
    TrustState,
    TrustStatus,
    Worker,
    WorkerMatch,
)
from indexer.memory import Walk, WalkedWorker
from service.kernel import PodScoreWriter, ScoresForm
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
        self.ranks_of = match.ranks_of


def looked_up(status: dict[Worker, TrustStatus]) -> Callable[[Worker, float], TrustStatus]:
    return lambda worker, _: status[worker]


class Entry(NamedTuple):
    """One entry of an answer."""

    match: WorkerMatch
    extra: int
    score: float

    @property
    def order(self) -> tuple[float, int]:
        return self.score, self.match.matched_blocks


class NaiveAnswer:
    """An answer, made with the generated classes."""

    def __init__(
        self,
        match: MemoryPrefixMatch,
        pods: list[str],
        ranks: list[tuple[str, int]],
        form: ScoresForm,
        speculative: dict[Worker, int],
    ) -> None:
        self.form = form
        self.speculative = speculative
        self.response = scoring_pb2.ScoreResponse()
        entries: list[Entry] = []
        for pod in pods:
            found = match.ranks_of(pod)
            if found is None:
                self.response.unknown_pods.append(pod)
            elif form.by_rank:
                entries += sorted(map(self.entry, found), key=lambda each: each.match.worker.rank)
            else:
                best = self.entry(found[0])
                for each in map(self.entry, found[1:]):
                    best = each if each.order > best.order else best
                entries.append(best)
        for pod, rank in ranks:
            of_rank = [each for each in match.ranks_of(pod) or () if each.worker.rank == rank]
            entries += map(self.entry, of_rank)
            if not of_rank:
                self.response.unknown_ranks.add(pod=pod, rank=rank)
        if form.only_holders:
            entries = [each for each in entries if each.match.matched_blocks or each.extra]
        if form.max_pods:
            places = sorted(range(len(entries)), key=lambda i: (*(-x for x in entries[i].order), i))
            entries = [entries[i] for i in places[: form.max_pods]]
        self.entries = entries

    def entry(self, match: WorkerMatch) -> Entry:
        leading = self.speculative.get(match.worker, 0)
        extra = max(0, leading - match.matched_blocks)
        return Entry(match, extra, match.score + self.form.speculative_weight * extra)

    def write(self, status: dict[Worker, TrustStatus]) -> None:
        for match, extra, score in self.entries:
            state, reason, silent, as_of = status[match.worker]
            message = self.response.pods.add(
                pod=match.worker.pod,
                rank=match.worker.rank,
                trust_state=TRUST_STATES[state],
                trust_reason=reason,
                silent_seconds=silent,
                as_of_sequence=as_of,
                reusable_tokens=match.reusable_tokens,
                reusable_is_bound=match.reusable_is_bound,
                score=score,
                normalized_score=score / self.form.total_blocks if self.form.total_blocks else 0,
                speculative_blocks=extra,
            )
            if match.matched_blocks:
                message.matched_blocks = match.matched_blocks
                message.matched_tokens = match.matched_blocks * BLOCK_SIZE
                message.matched_blocks_by_tier.update(match.by_tier)

    @property
    def best(self) -> list[int]:
        highest = max((each.score for each in self.entries), default=0)
        return [i for i, each in enumerate(self.entries) if highest and each.score == highest]

    def longest(self, status: dict[Worker, TrustStatus]) -> tuple[int, TrustState | None]:
        longest, trusted = 0, None
        for match, _, _ in self.entries:
            if match.matched_blocks > longest:
                longest, trusted = match.matched_blocks, status[match.worker].state
        return longest, trusted

    def promises(self, status: dict[Worker, TrustStatus]) -> list[tuple[Worker, int, int, bool]]:
        return [
            (
                match.worker,
                match.reusable_tokens,
                match.matched_blocks,
                status[match.worker].state is TrustState.EXACT and not match.reusable_is_bound,
            )
            for match, _, _ in self.entries
        ]


forms = st.builds(
    ScoresForm,
    block_size=st.just(BLOCK_SIZE),
    total_blocks=st.sampled_from([0, 3, 70_000]),
    only_holders=st.booleans(),
    max_pods=st.sampled_from([0, 0, 1, 2, 10]),
    by_rank=st.booleans(),
    speculative_weight=st.sampled_from([0.0, 0.25, 1.0]),
    with_promises=st.booleans(),
)


@given(
    match=matches(),
    named=st.lists(names, unique=True) | st.none(),
    ranks=st.lists(st.tuples(names, st.integers(0, 3)), unique=True, max_size=4),
    form=forms,
    data=st.data(),
    other=st.booleans(),
)
def test_an_answer_is_what_the_generated_classes_would_write(
    match: MemoryPrefixMatch,
    named: list[str] | None,
    ranks: list[tuple[str, int]],
    form: ScoresForm,
    data: st.DataObject,
    other: bool,
) -> None:
    writer = PodScoreWriter(TRUST_STATES)
    pods = list(match.pods) if named is None else named
    asked: Any = OtherMatch(match) if other else match
    workers = [rank.worker for ranks in match.pods.values() for rank in ranks]
    speculative = data.draw(
        st.just({}) | st.dictionaries(st.sampled_from(workers), counts.filter(bool))
        if workers
        else st.just({})
    )
    for _ in range(2):  # the second time some of it is remembered
        status = {worker: data.draw(statuses) for worker in workers}
        written = writer.write(asked, pods, looked_up(status), 0.0, form, ranks, speculative)
        expected = NaiveAnswer(match, pods, ranks, form, speculative)
        expected.write(status)
        answer = scoring_pb2.ScoreResponse.FromString(written.encoded)
        answer.unknown_pods.extend(written.unknown)
        for pod, rank in written.unknown_ranks:
            answer.unknown_ranks.add(pod=pod, rank=rank)
        assert answer == expected.response
        assert written.best == expected.best
        assert (written.longest, written.trust_state) == expected.longest(status)
        if form.with_promises:
            assert written.answered is not None
            found = list(zip(*written.answered, strict=True))
            assert found == expected.promises(status)
        else:
            assert written.answered is None
