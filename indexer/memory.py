"""The embedded index: everything in this process's memory, bounded by bytes."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, Self

from indexer.match import Cache, MemoryPrefixMatch
from indexer.prefix import walk_prefix
from indexer.rows import RowTable
from indexer.scheme import model_scope
from indexer.types import BlockKey, Place, Worker, WorkerBlocks

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from indexer.types import EngineHash, Hashes

DEFAULT_TIER_WEIGHTS: Mapping[str, float] = {"gpu": 1.0, "cpu": 0.8}
UNKNOWN_TIER_WEIGHT = 1.0
_MOST_TIERS = 64
_OTHER_TIER = "other"


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
        self.table = RowTable(limit_bytes, count_copies)
        self.tier_names: list[str] = []
        self._tier_numbers: dict[str, int] = {}
        self._weights = array("d")
        self._tier_weights = tier_weights
        for tier in tier_weights:
            self._tier(tier)
        self._caches: dict[Worker, Cache] = {}
        self._pods: dict[str, dict[str, list[Cache]]] = {}  # model -> pod -> its ranks
        self._member_workers = array("i")
        self._member_tiers = array("B")
        self._free_numbers: list[int] = []
        self._numbers = 0
        self._dumping = False

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
        scope = model_scope(model)
        knowing = self._member(scope, -1, 0)
        cache = Cache(worker, model, number, scope, knowing)
        self._caches[worker] = cache
        self._pods.setdefault(model, {}).setdefault(worker.pod, []).append(cache)

    def leave(self, worker: Worker) -> bool:
        """See `Index.leave`."""
        cache = self._caches.get(worker)
        if cache is None:
            return False
        self._leave(cache)
        return True

    def _leave(self, cache: Cache) -> None:
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
        self._place_member(member, worker_number if group == 0 else -1, tier)
        return member

    def _place_member(self, member: int, worker_number: int, tier: int) -> None:
        """Blocks of `member` count for the worker of this number (-1: for none) in `tier`."""
        while len(self._member_workers) <= member:
            self._member_workers.append(-1)
            self._member_tiers.append(0)
        self._member_workers[member] = worker_number
        self._member_tiers[member] = tier

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
        return not self._dumping and self.table.sweep(segments)

    # Requests

    def match(self, model: str, keys: array[int]) -> MemoryPrefixMatch:
        """See `Index.match`."""
        scope = model_scope(model)
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

    def _blocks_by_tier(self, cache: Cache) -> dict[str, int]:
        blocks: dict[str, int] = {}
        for place, member in cache.members.items():
            blocks[place.tier] = blocks.get(place.tier, 0) + self.table.held_by(member)
        return blocks

    # Snapshots

    def dump(self) -> Iterator[dict[str, Any]]:
        """All there is, in records of bounded size, for `load`.

        Taken as of the first record. No event may be applied before the last one; requests may be
        answered, and workers may leave. Nothing is tidied meanwhile.
        """
        self._dumping = True
        try:
            yield from self._dump()
        finally:
            self._dumping = False

    def _dump(self) -> Iterator[dict[str, Any]]:
        table = self.table.dump()
        yield {
            "table": next(table),
            "tiers": self.tier_names,
            "count_copies": self.table.count_copies,
            "numbers": self._numbers,
            "free": self._free_numbers,
            "caches": [
                {
                    "worker": tuple(cache.worker),
                    "model": cache.model,
                    "number": cache.number,
                    "knowing": cache.knowing,
                    "members": [(*place, member) for place, member in cache.members.items()],
                }
                for cache in self._caches.values()
            ],
        }
        yield from table

    @classmethod
    def load(
        cls, records: Iterator[dict[str, Any]], limit_bytes: int, tier_weights: Mapping[str, float]
    ) -> Self:
        """The index that was dumped.

        Raises ValueError if it does not fit into `limit_bytes`, KeyError, TypeError or ValueError
        if a record is malformed.
        """
        first = next(records)
        index = cls(limit_bytes, {}, first["count_copies"])
        index._tier_weights = tier_weights
        for tier in [*first["tiers"], *tier_weights]:
            index._tier(tier)
        index.table.load(first["table"], records)
        if index.table.bytes_used > limit_bytes:
            raise ValueError(
                f"it takes {index.table.bytes_used:,} bytes, and the limit is {limit_bytes:,}"
            )
        index._numbers, index._free_numbers = first["numbers"], list(first["free"])
        if index.table.members:  # retired ones still stand in sets, and count for nobody
            index._place_member(index.table.members - 1, -1, 0)
        for dumped in first["caches"]:
            index._load_cache(dumped)
        return index

    def _load_cache(self, dumped: dict[str, Any]) -> None:
        worker, model = Worker(*dumped["worker"]), dumped["model"]
        scope = model_scope(model)
        cache = Cache(worker, model, dumped["number"], scope, dumped["knowing"])
        self._place_member(cache.knowing, -1, 0)
        for tier, group, member in dumped["members"]:
            cache.members[Place(tier, group)] = member
            self._place_member(member, cache.number if group == 0 else -1, self._tier(tier))
        self._caches[worker] = cache
        self._pods.setdefault(model, {}).setdefault(worker.pod, []).append(cache)

    def __repr__(self) -> str:
        return f"<MemoryIndex {self.table.block_count:,} blocks, {len(self._caches)} workers>"
