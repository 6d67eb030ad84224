"""The outcome of a prefix walk, as callers of an index read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from typing_extensions import override

from indexer.index import PrefixMatch
from indexer.types import WorkerMatch

if TYPE_CHECKING:
    from array import array
    from collections.abc import Mapping, Sequence

    from indexer.cache_layout import CacheLayout, ReusePlan
    from indexer.types import Worker


@dataclass(slots=True)
class WalkedWorker:
    """A worker as prefix walks know it."""

    worker: Worker
    number: int
    """Its index in the arrays of a walk."""
    layout: CacheLayout
    key_block_size: int = field(init=False)
    """The layout's: tokens of its keys, 0 if they are as long as a prompt's."""
    plan: ReusePlan = field(init=False)
    """The layout, ready for a walk over its keys."""

    def __post_init__(self) -> None:
        self.set_layout(self.layout)

    def set_layout(self, layout: CacheLayout) -> None:
        """Replace the layout and what follows from it."""
        self.layout = layout
        self.key_block_size = layout.key_block_size
        self.plan = layout.plan(layout.key_block_size or 1)

    @property
    def chunks(self) -> set[int]:
        """The lengths of the chunks that its tiers load, in blocks of its keys."""
        size = self.key_block_size or 1
        return {self.layout.offload_chunk(tier, size) for tier in self.layout.offload_chunks} - {0}


class Walk(NamedTuple):
    """The outcome of one walk; for the first four fields see `PrefixWalk.walk`."""

    matched: array[int]
    scores: array[float]
    tiers: array[int]
    ends: array[int]
    tokens: int
    """Tokens of each key."""
    ratio: int
    """Keys that make one block of an answer."""


class MemoryPrefixMatch(PrefixMatch):
    """The outcome of a prompt's walks, one for each size of keys. Read it before the next event."""

    __slots__ = ("pods", "tiers", "walks")

    def __init__(
        self,
        pods: Mapping[str, Sequence[WalkedWorker]],
        tiers: Sequence[str],
        walks: Mapping[int, Walk],
    ) -> None:
        """Take the ranks of each pod, the names of tiers, and the walks by `key_block_size`."""
        self.pods = pods
        self.tiers = tiers
        self.walks = walks

    @override
    def ranks_of(self, pod: str) -> Sequence[WorkerMatch] | None:
        ranks = self.pods.get(pod)
        return None if ranks is None else [self._match_of(rank) for rank in ranks]

    @override
    def best_of(self, pod: str) -> WorkerMatch | None:
        ranks = self.pods.get(pod)
        return None if ranks is None else self._match_of(self.best_rank(ranks))

    def best_rank(self, ranks: Sequence[WalkedWorker]) -> WalkedWorker:
        """Return the best-scored of a pod's ranks, the first of equals."""
        return ranks[0] if len(ranks) == 1 else max(ranks, key=self._order)

    def _order(self, rank: WalkedWorker) -> tuple[float, int]:
        walk = self.walks[rank.key_block_size]
        return walk.scores[rank.number], walk.matched[rank.number]

    def match_of(self, worker: Worker) -> WorkerMatch | None:
        """Return how much `worker` itself holds; None if the index does not know it."""
        for rank in self.pods.get(worker.pod, ()):
            if rank.worker == worker:
                return self._match_of(rank)
        return None

    def _match_of(self, rank: WalkedWorker) -> WorkerMatch:
        number, walk = rank.number, self.walks[rank.key_block_size]
        matched = walk.matched[number]
        return WorkerMatch(
            rank.worker,
            walk.scores[number],
            matched // walk.ratio,
            self.by_tier(walk, number) if matched else {},
            walk.ends[number] * walk.tokens,
            rank.plan.is_bound,
        )

    def by_tier(self, walk: Walk, number: int) -> dict[str, int]:
        """Return the leading blocks that a worker holds, by tier, without those of none."""
        first = number * len(self.tiers)
        cells = zip(self.tiers, walk.tiers[first : first + len(self.tiers)], strict=True)
        return {tier: blocks for tier, cell in cells if (blocks := cell // walk.ratio)}
