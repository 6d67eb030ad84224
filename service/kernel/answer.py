# cython: boundscheck=False, wraparound=False, initializedcheck=False, warn.unreachable=False
"""One answer: the ranks that are in it, and their encoded `PodScore` messages."""

from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING

import cython

from indexer import TrustState
from service.kernel.pod_fields import counts_of, pod_prefix
from service.kernel.score_forms import AnsweredWorkers, WrittenScores
from service.kernel.wire import varint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from indexer import MemoryPrefixMatch, PrefixMatch, TrustStatus, Worker, WorkerMatch
    from indexer.memory import WalkedWorker
    from service.kernel.pod_scores import PodScoreWriter
    from service.kernel.score_forms import ScoresForm


@cython.cclass
class Answer:
    """The pods of one answer, as far as they are written."""

    def __init__(
        self,
        writer: PodScoreWriter,
        status_of: Callable[[Worker, float], TrustStatus],
        now: float,
        form: ScoresForm,
        speculative: dict[Worker, int],
    ) -> None:
        self._writer = writer
        self._status_of = status_of
        self._now = now
        self._form = form
        self._block_size = form.block_size
        self._weight = form.speculative_weight
        self._speculative = speculative
        self._parts = []
        self._entries = 0
        self.unknown = []
        self.unknown_ranks = []
        self._longest = 0
        self._trusted: TrustState | None = None
        self._best = []
        self._best_score = 0.0
        self._promises = form.with_promises
        self._workers = []
        self._reusable = []
        self._held = []
        self._exact = bytearray()

    def written(self) -> WrittenScores:
        """Return what has been written."""
        return WrittenScores(
            b"".join(self._parts),
            self.unknown,
            self.unknown_ranks,
            self._longest,
            self._trusted,
            self._best,
            AnsweredWorkers(
                self._workers,
                array("I", self._reusable),
                array("I", self._held),
                bytes(self._exact),
            )
            if self._promises
            else None,
        )

    def add_each(
        self, match: PrefixMatch, pods: Iterable[str], ranks: Sequence[tuple[str, int]]
    ) -> None:
        """Write pods and ranks; see `PodScoreWriter.write`."""
        form = self._form
        found: list = []  # score, matched blocks, speculative blocks, match
        for pod in pods:
            of_pod = match.ranks_of(pod)
            if of_pod is None:
                self.unknown.append(pod)
                continue
            rated = [self._rated(each) for each in of_pod]
            if form.by_rank:
                found.extend(sorted(rated, key=_rank_of_rated))
            else:
                found.append(max(rated, key=_score_and_blocks))
        for pod, rank in ranks:
            of_pod = [each for each in match.ranks_of(pod) or () if each.worker.rank == rank]
            if of_pod:
                found.append(self._rated(of_pod[0]))
            else:
                self.unknown_ranks.append((pod, rank))
        if form.only_holders:
            found = [rated for rated in found if rated[1] or rated[2]]
        if form.max_pods:
            # Sorting is stable: of equals the first ones stay.
            found.sort(key=_score_and_blocks, reverse=True)
            del found[form.max_pods :]
        for score, matched, extra, (worker, _, _, by_tier, reusable, is_bound) in found:
            counts = counts_of(score, matched, matched * self._block_size, by_tier)
            ending = self._ending(reusable, is_bound, score, extra)
            self._add(worker, matched, counts, ending, score, reusable, is_bound)

    def _rated(self, match: WorkerMatch) -> tuple:
        extra = max(0, self._speculative.get(match.worker, 0) - match.matched_blocks)
        return match.score + self._weight * extra, match.matched_blocks, extra, match

    def add_from_walk(
        self, match: MemoryPrefixMatch, pods: Iterable[str], named: Sequence[tuple[str, int]]
    ) -> None:
        """Write pods and ranks, all of which one walk has matched: what `add_each` would write."""
        ((_, walk),) = match.walks.items()
        self._matched = walk.matched
        self._scores = walk.scores
        self._ratio = walk.ratio
        by_tier: cython.uint[::1] = walk.tiers
        ends: cython.uint[::1] = walk.ends
        tokens: cython.uint = walk.tokens
        tier_count: cython.Py_ssize_t = len(match.tiers)
        only_holders: cython.bint = self._form.only_holders
        number: cython.Py_ssize_t
        tier: cython.Py_ssize_t
        blocks: cython.Py_ssize_t
        extra: cython.Py_ssize_t
        last_extra: cython.Py_ssize_t = 0
        last: cython.Py_ssize_t = -1  # the worker whose counts are these:
        counts: bytes = b""
        ending: bytes = b""
        score: cython.double = 0.0
        last_bound: cython.bint = False
        is_bound: cython.bint
        is_same: cython.bint
        for rank in self._choose(match.pods, pods, named):
            number = rank.number
            blocks = self._matched[number] // self._ratio
            extra = self._extra(rank, blocks) if self._speculative else 0
            if only_holders and blocks == 0 and extra == 0:
                continue
            is_bound = rank.plan.is_bound
            # Pods often hold the same as the one before.
            is_same = (
                last >= 0
                and is_bound == last_bound
                and extra == last_extra
                and self._matched[number] == self._matched[last]
                and self._scores[number] == self._scores[last]
                and ends[number] == ends[last]
            )
            if is_same:
                for tier in range(tier_count):
                    if by_tier[number * tier_count + tier] != by_tier[last * tier_count + tier]:
                        is_same = False
                        break
            if not is_same:
                last, last_bound, last_extra = number, is_bound, extra
                score = self._scores[number] + self._weight * extra
                tiers = match.by_tier(walk, number) if blocks else {}
                counts = counts_of(score, blocks, blocks * self._block_size, tiers)
                ending = self._ending(ends[number] * tokens, is_bound, score, extra)
            self._add(rank.worker, blocks, counts, ending, score, ends[number] * tokens, is_bound)

    def _choose(self, ranks_of: Mapping, pods: Iterable[str], named: Sequence) -> list:
        """Return the ranks to write, in order."""
        chosen: list = []
        by_rank: cython.bint = self._form.by_rank
        for pod in pods:
            ranks = ranks_of.get(pod)
            if ranks is None:
                self.unknown.append(pod)
            elif len(ranks) == 1:
                chosen.append(ranks[0])
            elif by_rank:
                chosen.extend(sorted(ranks, key=_rank_of_walked))
            else:
                chosen.append(self._best_rank(ranks))
        for pod, number in named:
            for rank in ranks_of.get(pod, ()):
                if rank.worker.rank == number:
                    chosen.append(rank)
                    break
            else:
                self.unknown_ranks.append((pod, number))
        most = self._form.max_pods
        return self._best_of(chosen, most) if most else chosen

    def _best_rank(self, ranks: Sequence[WalkedWorker]) -> WalkedWorker:
        """Return the best-scored of a pod's ranks, the first of equals."""
        best: WalkedWorker = ranks[0]
        best_key = self._score_of(best), self._matched[best.number]
        for rank in ranks[1:]:
            key = (self._score_of(rank), self._matched[rank.number])
            if key > best_key:
                best, best_key = rank, key
        return best

    def _best_of(self, ranks: list, most: cython.Py_ssize_t) -> list:
        """Return the ranks with the highest scores, best first, at most `most`."""
        holders: list = []
        others: list = []
        for rank in ranks:
            score: cython.double = self._score_of(rank)
            if score > 0 or self._matched[rank.number] >= self._ratio:
                holders.append((score, self._matched[rank.number] // self._ratio, rank))
            elif len(others) < most:
                others.append(rank)
        holders.sort(key=_score_and_blocks, reverse=True)  # stable: of equals the first ones stay
        return [*[rank for _, _, rank in holders], *others][:most]

    def _score_of(self, rank: WalkedWorker) -> cython.double:
        score: cython.double = self._scores[rank.number]
        if self._speculative:
            blocks: cython.Py_ssize_t = self._matched[rank.number] // self._ratio
            score += self._weight * self._extra(rank, blocks)
        return score

    def _extra(self, rank: WalkedWorker, blocks: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Return how many blocks after the first `blocks` are speculative."""
        leading: cython.Py_ssize_t = self._speculative.get(rank.worker, 0)
        return leading - blocks if leading > blocks else 0

    def _ending(
        self,
        reusable: cython.Py_ssize_t,
        is_bound: cython.bint,
        score: cython.double,
        extra: cython.Py_ssize_t,
    ) -> bytes:
        """Encode what the engine would reuse, and what follows: the fields after its trust."""
        encoded = b"\x58" + varint(reusable) if reusable else b""
        if is_bound:
            encoded += b"\x60\x01"
        if score and self._form.total_blocks:
            encoded += b"\x69" + struct.pack("<d", score / self._form.total_blocks)
        return encoded + b"\x70" + varint(extra) if extra else encoded

    def _add(
        self,
        worker: Worker,
        matched: cython.Py_ssize_t,
        counts: bytes,
        ending: bytes,
        score: cython.double,
        reusable: cython.Py_ssize_t,
        is_bound: cython.bint,
    ) -> None:
        status = self._status_of(worker, self._now)
        name, _, tail = self._writer.known(worker, status)
        if matched > self._longest:
            self._longest, self._trusted = matched, status.state
        if score > self._best_score:
            self._best_score, self._best = score, [self._entries]
        elif score == self._best_score and score > 0:
            self._best.append(self._entries)
        self._entries += 1
        if self._promises:
            self._workers.append(worker)
            self._reusable.append(reusable)
            self._held.append(matched)
            self._exact.append(status.state is TrustState.EXACT and not is_bound)
        parts: list = self._parts
        parts.append(pod_prefix(len(name) + len(counts) + len(tail) + len(ending)))
        parts.append(name)
        parts.append(counts)
        parts.append(tail)
        parts.append(ending)


def _score_and_blocks(rated: tuple) -> tuple[float, int]:
    return rated[0], rated[1]


def _rank_of_rated(rated: tuple) -> int:
    return rated[3].worker.rank


def _rank_of_walked(rank: WalkedWorker) -> int:
    return rank.worker.rank
