"""The embedded index: everything in this process's memory, bounded by bytes."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, Self

from indexer.cache_layout import CacheLayout
from indexer.kernel import PrefixWalk, RowTable
from indexer.match import KeySize, MemoryPrefixMatch, Walk, WorkerEntry
from indexer.scheme import model_scope
from indexer.types import BlockKey, Place, Worker, WorkerBlocks

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from indexer.index import PromptBlocks
    from indexer.types import EngineHash, Hashes

DEFAULT_TIER_WEIGHTS: Mapping[str, float] = {
    "gpu": 1.0,
    "cpu": 0.8,
    "shared_storage": 0.4,
    "disk": 0.3,
    "object_store": 0.2,
}
UNKNOWN_TIER_WEIGHT = 0.0
_MOST_TIERS = 64
_OTHER_TIER = "other"


class MemoryIndex:
    """An `Index` in memory. See there for what the calls mean; one thread only.

    limit_bytes: what blocks, engine hashes and holder sets may occupy; the longest unused are
        evicted beyond it, and counted.
    tier_weights: tier -> weight of a block in it; a tier not named weighs nothing.
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
        self._entries: dict[Worker, WorkerEntry] = {}
        self._pods: dict[str, dict[str, list[WorkerEntry]]] = {}  # model -> pod -> its ranks
        self._walk = PrefixWalk()
        self._key_sizes: dict[str, Sequence[KeySize]] = {}
        self._free_numbers: list[int] = []
        self._numbers = 0
        self._dumping = False

    # Workers

    def join(self, worker: Worker, model: str) -> None:
        """See `Index.join`."""
        entry = self._entries.get(worker)
        if entry is not None:
            if entry.model == model:
                return
            self._leave(entry)
        number = self._free_numbers.pop() if self._free_numbers else self._numbers
        self._numbers = max(self._numbers, number + 1)
        scope = model_scope(model)
        layout = CacheLayout()
        entry = WorkerEntry(
            worker, model, number, scope, self._new_holder(scope), 0, layout.plan(1)
        )
        self._walk.describe(number, entry.plan, chunked=False)
        self._entries[worker] = entry
        self._pods.setdefault(model, {}).setdefault(worker.pod, []).append(entry)
        self._key_sizes.pop(model, None)

    def describe(self, worker: Worker, layout: CacheLayout) -> None:
        """See `Index.describe`."""
        entry = self._entries[worker]
        if layout == entry.layout:
            return
        if layout.key_block_size != entry.layout.key_block_size:
            self.restart(worker, {place.tier for place in entry.holders})
        entry.layout, entry.key_block_size = layout, layout.key_block_size
        entry.plan = layout.plan(layout.key_block_size or 1)
        self._key_sizes.pop(entry.model, None)
        self._walk.describe(entry.number, entry.plan, bool(entry.chunks))
        for place, holder in entry.holders.items():
            self._place_holder(entry, place, holder)

    def layout_of(self, worker: Worker) -> CacheLayout:
        """See `Index.layout_of`."""
        entry = self._entries.get(worker)
        return CacheLayout() if entry is None else entry.layout

    def leave(self, worker: Worker) -> bool:
        """See `Index.leave`."""
        entry = self._entries.get(worker)
        if entry is None:
            return False
        self._leave(entry)
        return True

    def _leave(self, entry: WorkerEntry) -> None:
        for holder in (entry.announcer, *entry.holders.values()):
            self._retire(holder)
        self._free_numbers.append(entry.number)
        self._key_sizes.pop(entry.model, None)
        del self._entries[entry.worker]
        pods = self._pods[entry.model]
        pods[entry.worker.pod].remove(entry)
        if not pods[entry.worker.pod]:
            del pods[entry.worker.pod]
        if not pods:
            del self._pods[entry.model]

    def clear(self, worker: Worker, tiers: Collection[str]) -> None:
        """See `Index.clear`."""
        entry = self._entries.get(worker)
        if entry is None:
            return
        for place in [place for place in entry.holders if place.tier in tiers]:
            self._retire(entry.holders.pop(place))

    def restart(self, worker: Worker, tiers: Collection[str]) -> None:
        """See `Index.restart`."""
        self.clear(worker, tiers)
        entry = self._entries.get(worker)
        if entry is not None:
            self._retire(entry.announcer)
            entry.announcer = self._new_holder(entry.scope)

    def evicted(self) -> Sequence[tuple[Worker, str]]:
        """See `Index.evicted`."""
        if not self.table.evicted_holders:
            return ()
        evicted_holders = set(self.table.evicted_holders)
        self.table.evicted_holders.clear()
        return [
            (entry.worker, place.tier)
            for entry in self._entries.values()
            for place, holder in entry.holders.items()
            if holder in evicted_holders
        ]

    def _retire(self, holder: int) -> None:
        self._walk.place(holder, -1)
        self.table.retire(holder)

    def _new_holder(self, scope: int, *, announcer: bool = True) -> int:
        """A new member, which counts in no score yet."""
        holder = self.table.new_holder(scope, announcer)
        self._walk.place(holder, -1)
        return holder

    def _place_holder(self, entry: WorkerEntry, place: Place, holder: int) -> None:
        """Blocks of `holder` count for the worker, if the group of `place` is one of its layout."""
        self._walk.place(
            holder,
            entry.number,
            self._tier(place.tier),
            entry.plan.bits.get(place.group, 0),
            entry.layout.offload_chunk(place.tier, entry.key_block_size or 1),
        )

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

    def _holder_of(self, worker: Worker, place: Place) -> tuple[int, int]:
        """The members of a worker for `place` and for its knowledge."""
        entry = self._entries[worker]
        holder = entry.holders.get(place)
        if holder is None:
            holder = entry.holders[place] = self._new_holder(entry.scope, announcer=False)
            self._place_holder(entry, place, holder)
        return holder, entry.announcer

    # Events

    def store(
        self,
        worker: Worker,
        place: Place,
        hashes: Hashes,
        keys: array[int],
        *,
        new_copies: bool = True,
    ) -> None:
        """See `Index.store`. The worker must have joined."""
        holder, announcer = self._holder_of(worker, place)
        self.table.store(hashes, keys, holder, announcer, new_copies)

    def store_known(
        self,
        worker: Worker,
        place: Place,
        hashes: Hashes,
        *,
        new_copies: bool = True,
        most: int = 0,
    ) -> int:
        """See `Index.store_known`. The worker must have joined."""
        holder, announcer = self._holder_of(worker, place)
        return self.table.store_known(hashes, holder, announcer, new_copies, most)

    def limit_copies(
        self, worker: Worker, place: Place, hashes: Hashes, most: Sequence[int]
    ) -> None:
        """See `Index.limit_copies`."""
        entry = self._entries.get(worker)
        holder = entry.holders.get(place) if entry else None
        if holder is not None:
            self.table.limit_copies(hashes, array("Q", most), holder)

    def remove(self, worker: Worker, place: Place, hashes: Hashes) -> int:
        """See `Index.remove`."""
        entry = self._entries.get(worker)
        holder = entry.holders.get(place) if entry else None
        if holder is None:
            return len(hashes)
        return self.table.remove(hashes, holder)

    def key_of(self, worker: Worker, engine_hash: EngineHash) -> BlockKey | None:
        """See `Index.key_of`."""
        entry = self._entries.get(worker)
        if entry is None:
            return None
        key = self.table.key_of(engine_hash, entry.announcer)
        return None if key is None else BlockKey(key)

    def sweep(self, segments: int = 4) -> bool:
        """Free a slice of what retired holders left behind; True if there is more to do."""
        return not self._dumping and self.table.sweep(segments)

    # Requests

    def match(self, model: str, prompt: PromptBlocks) -> MemoryPrefixMatch:
        """See `Index.match`."""
        scope = model_scope(model)
        pods = self._pods.get(model, {})
        walks = {}
        of_model = self._key_sizes.get(model) or self._find_key_sizes(model)
        for key_block_size, chunks, gap in of_model:
            size = key_block_size or prompt.block_size
            keys = prompt.at(size)
            ratio = prompt.block_size // size or 1
            walked = self._walk.walk(
                self.table.sets_of(keys, scope, gap),
                self.table.sets.holders,
                self._weights,
                self._numbers,
                len(keys),
                (prompt.tokens - 1) // size,
                chunks,
                ratio,
            )
            walks[key_block_size] = Walk(*walked, size, ratio)
        return MemoryPrefixMatch(pods, self.tier_names, walks)

    def _find_key_sizes(self, model: str) -> Sequence[KeySize]:
        """The sizes of keys of a model's workers, if it has any."""
        chunks: dict[int, set[int]] = {}
        for of_pod in self._pods.get(model, {}).values():
            for entry in of_pod:
                chunks.setdefault(entry.key_block_size, set()).update(entry.chunks)
        found = [KeySize.of(size, lengths) for size, lengths in chunks.items()]
        if found:  # names of models come with requests
            self._key_sizes[model] = found
        return found

    def pods_of(self, model: str) -> Sequence[str]:
        """See `Index.pods_of`."""
        return list(self._pods.get(model, ()))

    def models(self) -> Sequence[str]:
        """See `Index.models`."""
        return list(self._pods)

    def workers(self) -> Sequence[WorkerBlocks]:
        """See `Index.workers`."""
        return [
            WorkerBlocks(entry.worker, entry.model, self._blocks_by_tier(entry), entry.layout)
            for entry in self._entries.values()
        ]

    def _blocks_by_tier(self, entry: WorkerEntry) -> dict[str, int]:
        """What the main groups hold; where there are several, the one that holds most."""
        blocks: dict[str, int] = {}
        for place, holder in entry.holders.items():
            if entry.plan.bits.get(place.group, 0) & entry.plan.main:
                held = self.table.held_by(holder)
                blocks[place.tier] = max(blocks.get(place.tier, 0), held)
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
            "entries": [
                {
                    "worker": tuple(entry.worker),
                    "model": entry.model,
                    "number": entry.number,
                    "announcer": entry.announcer,
                    "layout": entry.layout.dump(),
                    "holders": [(*place, holder) for place, holder in entry.holders.items()],
                }
                for entry in self._entries.values()
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
        for dumped in first["entries"]:
            index._load_entry(dumped)
        return index

    def _load_entry(self, dumped: dict[str, Any]) -> None:
        worker, model = Worker(*dumped["worker"]), dumped["model"]
        layout = CacheLayout.load(dumped["layout"])
        size = layout.key_block_size
        entry = WorkerEntry(
            worker,
            model,
            dumped["number"],
            model_scope(model),
            dumped["announcer"],
            size,
            layout.plan(size or 1),
            layout,
        )
        self._walk.describe(entry.number, entry.plan, bool(entry.chunks))
        for tier, group, holder in dumped["holders"]:
            place = Place(tier, group)
            entry.holders[place] = holder
            self._place_holder(entry, place, holder)
        self._entries[worker] = entry
        self._pods.setdefault(model, {}).setdefault(worker.pod, []).append(entry)

    def __repr__(self) -> str:
        return f"<MemoryIndex {self.table.block_count:,} blocks, {len(self._entries)} workers>"
