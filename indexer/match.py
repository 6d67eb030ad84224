"""The outcome of a prefix walk over the embedded index, as its callers read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from indexer.cache_layout import CacheLayout
from indexer.types import Place, Worker, WorkerMatch

if TYPE_CHECKING:
    from array import array
    from collections.abc import Collection, Mapping, Sequence

    from indexer.cache_layout import ReusePlan


@dataclass(slots=True)
class WorkerEntry:
    """A worker as the index keeps it.

    number: its own. scope: of its model. members: of the block table, those that hold, by place;
    knowing: the one that stands for its knowledge. layout: of its groups; plan: the same, ready for
    the walk over keys of `key_block_size` tokens.
    """

    worker: Worker
    model: str
    number: int
    scope: int
    announcer: int
    key_block_size: int
    plan: ReusePlan
    layout: CacheLayout = field(default_factory=CacheLayout)
    holders: dict[Place, int] = field(default_factory=dict)

    @property
    def chunks(self) -> set[int]:
        """The lengths of the chunks that its tiers load, in blocks of its keys."""
        lengths = {
            self.layout.offload_chunk(tier, self.key_block_size)
            for tier in self.layout.offload_chunks
        }
        return lengths - {0}


class KeySize(NamedTuple):
    """Keys of one length among those of a model's workers.

    tokens: of a key, 0 for a prompt's own. chunks: the lengths of chunks that tiers load, in keys.
    gap: how many blocks in a row may be held by nobody before a prefix surely ends.
    """

    tokens: int
    chunks: tuple[int, ...]
    gap: int

    @classmethod
    def of(cls, tokens: int, chunks: Collection[int]) -> KeySize:
        """Keys of so many tokens, with chunks of these lengths."""
        return cls(tokens, tuple(sorted(chunks)), max(chunks, default=1))


class Walk(NamedTuple):
    """The outcome of one walk by worker, see `PrefixWalk.walk`.

    tokens: of each key. ratio: how many keys there are to a block of an answer.
    """

    matched: array[int]
    scores: array[float]
    tiers: array[int]
    ends: array[int]
    tokens: int
    ratio: int


class MemoryPrefixMatch:
    """The outcome of a prompt's walks, one for each size of keys; read it before the next event."""

    __slots__ = ("_pods", "_tiers", "_walks")

    def __init__(
        self,
        pods: Mapping[str, list[WorkerEntry]],
        tiers: Sequence[str],
        walks: Mapping[int, Walk],
    ) -> None:
        self._pods = pods
        self._tiers = tiers
        self._walks = walks

    def best_of(self, pod: str) -> WorkerMatch | None:
        """See `PrefixMatch.best_of`."""
        entries = self._pods.get(pod)
        if entries is None:
            return None
        best = entries[0]
        if len(entries) > 1:
            best = max(entries, key=self._rank)  # the first of equals
        return self._of(best)

    def _rank(self, entry: WorkerEntry) -> tuple[float, int]:
        walk = self._walks[entry.key_block_size]
        return walk.scores[entry.number], walk.matched[entry.number]

    def of(self, worker: Worker) -> WorkerMatch | None:
        """How much this very worker holds; None for one unheard of."""
        for entry in self._pods.get(worker.pod, ()):
            if entry.worker == worker:
                return self._of(entry)
        return None

    def _of(self, entry: WorkerEntry) -> WorkerMatch:
        number = entry.number
        matched_by, scores, tiers, ends, tokens, ratio = self._walks[entry.key_block_size]
        matched = matched_by[number]
        by_tier = {}
        if matched:
            cell = number * len(self._tiers)
            for tier in self._tiers:
                blocks = tiers[cell] // ratio
                if blocks:
                    by_tier[tier] = blocks
                cell += 1
        return WorkerMatch(
            entry.worker,
            scores[number],
            matched // ratio,
            by_tier,
            ends[number] * tokens,
            entry.plan.is_bound,
        )
