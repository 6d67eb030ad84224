"""The embedded index: everything in this process's memory, bounded by bytes."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from indexer.keys import FNV_OFFSET_BASIS, fnv1a_64
from indexer.prefix import walk_prefix
from indexer.table import BlockTable
from indexer.types import BlockKey, WorkerBlocks, WorkerMatch

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from indexer.types import EngineHash, Hashes, Place, Worker

DEFAULT_TIER_WEIGHTS: Mapping[str, float] = {"gpu": 1.0, "cpu": 0.8}
UNKNOWN_TIER_WEIGHT = 1.0
_MOST_TIERS = 64
_OTHER_TIER = "other"


@dataclass(slots=True)
class _Cache:
    """A worker as the index keeps it: its number, its scope and its members of the block table."""

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
        pods: Mapping[str, list[_Cache]],
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
        number = best.number
        matched = self._matched[number]
        by_tier = {}
        if matched:
            cell = number * len(self._tiers)
            for tier in self._tiers:
                blocks = self._by_tier[cell]
                if blocks:
                    by_tier[tier] = blocks
                cell += 1
        return WorkerMatch(best.worker, scores[number], matched, by_tier)


class MemoryIndex:
    """An `Index` in memory. See there for what the calls mean; one thread only.

    limit_bytes: what blocks, engine hashes and holder sets may occupy; the longest unused are
        evicted beyond it, and counted.
    tier_weights: tier -> weight of a block in it; a tier not named weighs 1.0.
    count_copies: False for engines that announce a copy again without there being another one.
    """

    def __init__(
        self,
        limit_bytes: int,
        tier_weights: Mapping[str, float] = DEFAULT_TIER_WEIGHTS,
        count_copies: bool = True,
    ) -> None:
        self.table = BlockTable(limit_bytes, count_copies)
        self.tier_names: list[str] = []
        self._tier_numbers: dict[str, int] = {}
        self._weights = array("d")
        self._tier_weights = tier_weights
        for tier in tier_weights:
            self._tier(tier)
        self._caches: dict[Worker, _Cache] = {}
        self._pods: dict[str, dict[str, list[_Cache]]] = {}  # model -> pod -> its ranks
        self._member_workers = array("i")
        self._member_tiers = array("B")
        self._free_numbers: list[int] = []
        self._numbers = 0

    # Workers

    def join(self, worker: Worker, model: str) -> None:
        """See `Index.join`."""
        cache = self._caches.get(worker)
        if cache is not None:
            if cache.model == model:
                return
            self._leave(cache)
        number = self._free_numbers.pop() if self._free_numbers else self._numbers
        self._numbers = max(self._numbers, number + 1)
        scope = fnv1a_64(model.encode(), FNV_OFFSET_BASIS)
        knowing = self._member(scope, -1, 0)
        cache = _Cache(worker, model, number, scope, knowing)
        self._caches[worker] = cache
        self._pods.setdefault(model, {}).setdefault(worker.pod, []).append(cache)

    def leave(self, worker: Worker) -> bool:
        """See `Index.leave`."""
        cache = self._caches.get(worker)
        if cache is None:
            return False
        self._leave(cache)
        return True

    def _leave(self, cache: _Cache) -> None:
        for member in (cache.knowing, *cache.members.values()):
            self._retire(member)
        self._free_numbers.append(cache.number)
        del self._caches[cache.worker]
        pods = self._pods[cache.model]
        pods[cache.worker.pod].remove(cache)
        if not pods[cache.worker.pod]:
            del pods[cache.worker.pod]
        if not pods:
            del self._pods[cache.model]

    def clear(self, worker: Worker, tiers: Collection[str]) -> None:
        """See `Index.clear`."""
        cache = self._caches.get(worker)
        if cache is None:
            return
        for place in [place for place in cache.members if place.tier in tiers]:
            self._retire(cache.members.pop(place))

    def restart(self, worker: Worker, tiers: Collection[str]) -> None:
        """See `Index.restart`."""
        self.clear(worker, tiers)
        cache = self._caches.get(worker)
        if cache is not None:
            self._retire(cache.knowing)
            cache.knowing = self._member(cache.scope, -1, 0)

    def evicted(self) -> Sequence[tuple[Worker, str]]:
        """See `Index.evicted`."""
        if not self.table.losers:
            return ()
        losers = set(self.table.losers)
        self.table.losers.clear()
        return [
            (cache.worker, place.tier)
            for cache in self._caches.values()
            for place, member in cache.members.items()
            if member in losers and place.group == 0
        ]

    def _retire(self, member: int) -> None:
        self._member_workers[member] = -1
        self.table.retire(member)

    def _member(self, scope: int, worker_number: int, group: int, tier: int = 0) -> int:
        """A new member; only those of group 0 count in scores, and never a knowing one."""
        member = self.table.new_member(scope, worker_number < 0)
        while len(self._member_workers) <= member:
            self._member_workers.append(-1)
            self._member_tiers.append(0)
        self._member_workers[member] = worker_number if group == 0 else -1
        self._member_tiers[member] = tier
        return member

    def _tier(self, name: str) -> int:
        number = self._tier_numbers.get(name)
        if number is None:
            if len(self.tier_names) >= _MOST_TIERS:
                name = _OTHER_TIER  # names come off the wire: they must not pile up
            number = self._tier_numbers.setdefault(name, len(self.tier_names))
            if number == len(self.tier_names):
                self.tier_names.append(name)
                self._weights.append(self._tier_weights.get(name, UNKNOWN_TIER_WEIGHT))
        return number

    def _holder(self, worker: Worker, place: Place) -> tuple[int, int]:
        """The members of a worker for `place` and for its knowledge."""
        cache = self._caches[worker]
        member = cache.members.get(place)
        if member is None:
            member = self._member(cache.scope, cache.number, place.group, self._tier(place.tier))
            cache.members[place] = member
        return member, cache.knowing

    # Events

    def store(self, worker: Worker, place: Place, hashes: Hashes, keys: array[int]) -> None:
        """See `Index.store`. The worker must have joined."""
        member, knowing = self._holder(worker, place)
        self.table.store(hashes, keys, member, knowing)

    def store_known(self, worker: Worker, place: Place, hashes: Hashes) -> int:
        """See `Index.store_known`. The worker must have joined."""
        member, knowing = self._holder(worker, place)
        return self.table.store_known(hashes, member, knowing)

    def remove(self, worker: Worker, place: Place, hashes: Hashes) -> int:
        """See `Index.remove`."""
        cache = self._caches.get(worker)
        member = cache.members.get(place) if cache else None
        if member is None:
            return len(hashes)
        return self.table.remove(hashes, member)

    def key_of(self, worker: Worker, engine_hash: EngineHash) -> BlockKey | None:
        """See `Index.key_of`."""
        cache = self._caches.get(worker)
        if cache is None:
            return None
        key = self.table.key_of(engine_hash, cache.knowing)
        return None if key is None else BlockKey(key)

    def tidy(self, segments: int = 4) -> bool:
        """Free a slice of what retired holders left behind; True if there is more to do."""
        return self.table.sweep(segments)

    # Requests

    def match(self, model: str, keys: array[int]) -> MemoryPrefixMatch:
        """See `Index.match`."""
        scope = fnv1a_64(model.encode(), FNV_OFFSET_BASIS)
        walked = walk_prefix(
            self.table.sets_of(keys, scope),
            self.table.sets.members,
            self._member_workers,
            self._member_tiers,
            self._weights,
            self._numbers,
        )
        return MemoryPrefixMatch(self._pods.get(model, {}), self.tier_names, walked)

    def pods_of(self, model: str) -> Sequence[str]:
        """See `Index.pods_of`."""
        return list(self._pods.get(model, ()))

    def models(self) -> Sequence[str]:
        """See `Index.models`."""
        return list(self._pods)

    def workers(self) -> Sequence[WorkerBlocks]:
        """See `Index.workers`."""
        return [
            WorkerBlocks(cache.worker, cache.model, self._blocks_by_tier(cache))
            for cache in self._caches.values()
        ]

    def _blocks_by_tier(self, cache: _Cache) -> dict[str, int]:
        blocks: dict[str, int] = {}
        for place, member in cache.members.items():
            blocks[place.tier] = blocks.get(place.tier, 0) + self.table.held_by(member)
        return blocks

    def __repr__(self) -> str:
        return f"<MemoryIndex {self.table.block_count:,} blocks, {len(self._caches)} workers>"
