# cython: boundscheck=False, wraparound=False, initializedcheck=False, warn.unreachable=False
"""The matches of a prompt -> the encoded `PodScore` messages of an answer.

A Python object for every pod of every answer costs more than all that leads to it. What is written
here is what the generated classes write, field by field in the order of their numbers.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import cython

from indexer import MemoryPrefixMatch
from service.kernel.wire import varint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from indexer import PrefixMatch, TrustState, TrustStatus, Worker, WorkerMatch

_MOST_KNOWN = 16_384  # workers


class WrittenScores(NamedTuple):
    """The pods of an answer."""

    encoded: bytes
    """The field `pods` of a `ScoreResponse`, once for each pod."""
    unknown: list[str]
    """The named pods that the index does not know."""
    longest: int
    """Blocks of the longest match."""
    trust_state: TrustState | None
    """Of the first pod that has the longest match; None if nobody holds anything."""


@cython.cclass
class PodScoreWriter:
    """Writes the pods of answers, and remembers how their names and their trust are encoded."""

    def __init__(self, trust_states: Mapping[TrustState, int]) -> None:
        """Args: trust_states: the numbers of the enumeration in trust.proto."""
        self._trust_states = dict(trust_states)
        self._known = {}  # worker -> (name field, trust status, the fields of rank and status)

    def write(
        self,
        match: PrefixMatch,
        pods: Iterable[str],
        status_of: Callable[[Worker, float], TrustStatus],
        now: float,
        block_size: int,
        only_holders: bool = False,
        max_pods: int = 0,
    ) -> WrittenScores:
        """Write the best rank of each of `pods`.

        Args:
            match: what each worker holds of the prompt.
            pods: their names, each once.
            status_of: takes a worker and `now`.
            now: by `time.monotonic`.
            block_size: tokens of a block of the answer.
            only_holders: leave out pods that hold nothing.
            max_pods: so many with the highest scores, best first; 0: all, in their order.
        """
        answer = Answer(self, status_of, now, block_size)
        if isinstance(match, MemoryPrefixMatch) and len(match.walks) == 1:
            if max_pods:
                pods = _best_pods(match, pods, max_pods, answer.unknown)
            answer.add_from_walk(match, pods, only_holders)
        else:
            answer.add_each(match, pods, only_holders, max_pods)
        return answer.written()

    def known(self, worker: Worker, status: TrustStatus) -> tuple:
        """Return the field of the pod's name, `status`, and the fields of the rank and status."""
        known = self._known.get(worker)
        if known is not None and known[1] is status:
            return known
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        state, reason, silent, as_of = status
        tail = b"" if worker.rank == 0 else b"\x30" + varint(worker.rank)
        number = self._trust_states[state]
        if number:
            tail += b"\x38" + varint(number)
        tail += _text(b"\x42", reason)
        if silent is not None:
            tail += b"\x49" + struct.pack("<d", silent)
        if as_of is not None:
            tail += b"\x50" + varint(as_of)
        known = self._known[worker] = (_text(b"\x0a", worker.pod), status, tail)
        return known


@cython.cclass
class Answer:
    """The pods of one answer, as far as they are written."""

    def __init__(
        self,
        writer: PodScoreWriter,
        status_of: Callable[[Worker, float], TrustStatus],
        now: float,
        block_size: int,
    ) -> None:
        self._writer = writer
        self._status_of = status_of
        self._now = now
        self._block_size = block_size
        self._parts = []
        self.unknown = []
        self._longest = 0
        self._trusted: TrustState | None = None

    def written(self) -> WrittenScores:
        """Return what has been written."""
        return WrittenScores(b"".join(self._parts), self.unknown, self._longest, self._trusted)

    def add_each(
        self, match: PrefixMatch, pods: Iterable[str], only_holders: bool, max_pods: int
    ) -> None:
        """Write pods; see `PodScoreWriter.write`."""
        found: list = []
        for pod in pods:
            best = match.best_of(pod)
            if best is None:
                self.unknown.append(pod)
            elif best.matched_blocks or not only_holders:
                found.append(best)
        if max_pods:
            # Sorting is stable: of equals the first ones stay.
            found.sort(key=_by_score, reverse=True)
            del found[max_pods:]
        for worker, score, matched, by_tier, reusable, is_bound in found:
            counts = _counts(score, matched, matched * self._block_size, by_tier)
            self._add(worker, matched, counts, _ending(reusable, is_bound))

    def add_from_walk(
        self, match: MemoryPrefixMatch, pods: Iterable[str], only_holders: cython.bint
    ) -> None:
        """Write pods, all of which one walk has matched: what `add_each` would write."""
        ((_, walk),) = match.walks.items()
        ranks_of = match.pods
        matched_by_worker: cython.uint[::1] = walk.matched
        scores: cython.double[::1] = walk.scores
        by_tier: cython.uint[::1] = walk.tiers
        ends: cython.uint[::1] = walk.ends
        ratio: cython.uint = walk.ratio
        tokens: cython.uint = walk.tokens
        tier_count: cython.Py_ssize_t = len(match.tiers)
        number: cython.Py_ssize_t
        tier: cython.Py_ssize_t
        blocks: cython.uint
        last: cython.Py_ssize_t = -1  # the worker whose counts are these:
        counts: bytes = b""
        ending: bytes = b""
        last_bound: cython.bint = False
        is_bound: cython.bint
        is_same: cython.bint
        for pod in pods:
            ranks = ranks_of.get(pod)
            if ranks is None:
                self.unknown.append(pod)
                continue
            rank = ranks[0] if len(ranks) == 1 else match.best_rank(ranks)
            number = rank.number
            blocks = matched_by_worker[number] // ratio
            if blocks == 0 and only_holders:
                continue
            is_bound = rank.plan.is_bound
            # Pods often hold the same as the one before.
            is_same = (
                last >= 0
                and is_bound == last_bound
                and matched_by_worker[number] == matched_by_worker[last]
                and scores[number] == scores[last]
                and ends[number] == ends[last]
            )
            if is_same:
                for tier in range(tier_count):
                    if by_tier[number * tier_count + tier] != by_tier[last * tier_count + tier]:
                        is_same = False
                        break
            if not is_same:
                last, last_bound = number, is_bound
                tiers = match.by_tier(walk, number)
                counts = _counts(scores[number], blocks, blocks * self._block_size, tiers)
                ending = _ending(ends[number] * tokens, is_bound)
            self._add(rank.worker, blocks, counts, ending)

    def _add(
        self, worker: Worker, matched: cython.Py_ssize_t, counts: bytes, ending: bytes
    ) -> None:
        status = self._status_of(worker, self._now)
        name, _, tail = self._writer.known(worker, status)
        if matched > self._longest:
            self._longest, self._trusted = matched, status.state
        parts: list = self._parts
        parts.append(_prefix(len(name) + len(counts) + len(tail) + len(ending)))
        parts.append(name)
        parts.append(counts)
        parts.append(tail)
        parts.append(ending)


def _counts(score: float, matched: int, tokens: int, by_tier: dict[str, int]) -> bytes:
    """Encode what a pod holds: the fields before its rank."""
    if not matched:
        return b""
    encoded = b"\x11" + struct.pack("<d", score) if score else b""
    encoded += b"\x18" + varint(matched) + b"\x20" + varint(tokens)
    for tier, blocks in by_tier.items():
        entry = (_text(b"\x0a", tier) or b"\x0a\x00") + b"\x10" + varint(blocks)
        encoded += b"\x2a" + varint(len(entry)) + entry
    return encoded


def _ending(reusable: int, is_bound: bool) -> bytes:
    """Encode what the engine would reuse: the fields after its trust."""
    return (b"\x58" + varint(reusable) if reusable else b"") + (b"\x60\x01" if is_bound else b"")


def _best_pods(
    match: MemoryPrefixMatch, pods: Iterable[str], most: cython.Py_ssize_t, unknown: list
) -> list:
    """Return the pods with the highest scores in the only walk, best first, at most `most`."""
    ((_, walk),) = match.walks.items()
    ranks_of = match.pods
    matched: cython.uint[::1] = walk.matched
    scores: cython.double[::1] = walk.scores
    ratio: cython.uint = walk.ratio
    number: cython.Py_ssize_t
    holders: list = []
    others: list = []
    for pod in pods:
        ranks = ranks_of.get(pod)
        if ranks is None:
            unknown.append(pod)
            continue
        rank = ranks[0] if len(ranks) == 1 else match.best_rank(ranks)
        number = rank.number
        if matched[number] >= ratio:
            holders.append((scores[number], matched[number], pod))
        elif len(others) < most:
            others.append(pod)
    holders.sort(key=_score_and_blocks, reverse=True)  # stable: of equals the first ones stay
    return [*[pod for _, _, pod in holders], *others][:most]


def _score_and_blocks(holder: tuple[float, int, str]) -> tuple[float, int]:
    return holder[0], holder[1]


def _by_score(best: WorkerMatch) -> tuple[float, int]:
    return best.score, best.matched_blocks


def _text(tag: bytes, text: str) -> bytes:
    """Return a field of text, nothing for an empty one."""
    encoded = text.encode()
    return tag + varint(len(encoded)) + encoded if encoded else b""


_SHORT = [b"\x0a" + varint(size) for size in range(1024)]


def _prefix(size: cython.Py_ssize_t) -> bytes:
    """Return the tag of the field `pods`, and the size of what follows."""
    return _SHORT[size] if size < 1024 else b"\x0a" + varint(size)
