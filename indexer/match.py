"""The outcome of a prefix walk over the embedded index, as its callers read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from indexer.types import Place, Worker, WorkerMatch

if TYPE_CHECKING:
    from array import array
    from collections.abc import Mapping, Sequence


@dataclass(slots=True)
class Cache:
    """A worker as the index keeps it.

    number: its own. scope: of its model. members: of the block table, those that hold, by place;
    knowing: the one that stands for its knowledge.
    """

    worker: Worker
    model: str
    number: int
    scope: int
    knowing: int
    members: dict[Place, int] = field(default_factory=dict)


class MemoryPrefixMatch:
    """The outcome of one prefix walk, by worker number; read it before the next event."""

    __slots__ = ("_by_tier", "_matched", "_pods", "_scores", "_tiers")

    def __init__(
        self,
        pods: Mapping[str, list[Cache]],
        tiers: Sequence[str],
        walked: tuple[array[int], array[float], array[int]],
    ) -> None:
        self._pods = pods
        self._tiers = tiers
        self._matched, self._scores, self._by_tier = walked

    def best_of(self, pod: str) -> WorkerMatch | None:
        """See `PrefixMatch.best_of`."""
        caches = self._pods.get(pod)
        if caches is None:
            return None
        scores = self._scores
        best = caches[0]
        for cache in caches[1:]:
            new, old = cache.number, best.number
            if (scores[new], self._matched[new]) > (scores[old], self._matched[old]):
                best = cache
        return self._of(best)

    def of(self, worker: Worker) -> WorkerMatch | None:
        """How much this very worker holds; None for one unheard of."""
        for cache in self._pods.get(worker.pod, ()):
            if cache.worker == worker:
                return self._of(cache)
        return None

    def _of(self, cache: Cache) -> WorkerMatch:
        number = cache.number
        matched = self._matched[number]
        by_tier = {}
        if matched:
            cell = number * len(self._tiers)
            for tier in self._tiers:
                blocks = self._by_tier[cell]
                if blocks:
                    by_tier[tier] = blocks
                cell += 1
        return WorkerMatch(cache.worker, self._scores[number], matched, by_tier)
