"""`MemoryIndex`: everything in this process's memory, bounded by bytes."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, Self

from typing_extensions import override

from indexer.cache_layout import CacheLayout
from indexer.index import BlockWatcher, Index
from indexer.kernel import RowTable, WorkerPlans
from indexer.memory.dumped_table import DumpedTable
from indexer.memory.dumped_workers import dumped_entries, dumped_tiers
from indexer.memory.holders import HolderAllocator
from indexer.memory.prompt_matcher import PromptMatcher
from indexer.memory.tiers import DEFAULT_TIER_WEIGHTS, TierRegistry
from indexer.memory.workers import WorkerEntry, WorkerRegistry
from indexer.scheme import model_scope
from indexer.types import BlockKey, Place, WorkerBlocks

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from indexer.index import PromptBlocks
    from indexer.memory.match import MemoryPrefixMatch
    from indexer.types import EngineHash, Hashes, Worker


class MemoryIndex(Index):
    """An `Index` in memory, for one thread.

    The block table knows holders only as numbers. The entry of a worker says which are its own.
    """

    def __init__(
        self,
        limit_bytes: int,
        tier_weights: Mapping[str, float] = DEFAULT_TIER_WEIGHTS,
        count_copies: bool = True,
    ) -> None:
        """Make an empty index.

        Args:
            limit_bytes: what blocks, engine hashes and holder sets may occupy. Beyond it the
                longest unused are evicted, and counted.
            tier_weights: tier -> weight of a block in it; a tier without one weighs nothing.
            count_copies: False for engines that announce a block again without another copy.
        """
        self.table = RowTable(limit_bytes, count_copies)
        self.tiers = TierRegistry(tier_weights)
        self._workers = WorkerRegistry()
        plans = WorkerPlans()
        self._matcher = PromptMatcher(self.table, self.tiers, self._workers, plans)
        self._holders = HolderAllocator(self.table, plans, self.tiers)
        self._is_dumping = False
        self.watchers: dict[Worker, BlockWatcher] = {}

    # Workers

    @override
    def join(self, worker: Worker, model: str) -> None:
        entry = self._workers.entries.get(worker)
        if entry is not None:
            if entry.model == model:
                return
            self._leave(entry)
        scope = model_scope(model)
        entry = WorkerEntry(
            worker=worker,
            number=self._workers.take_number(),
            layout=CacheLayout(),
            model=model,
            scope=scope,
            announcer=self._holders.new_announcer(scope),
        )
        self._holders.plan(entry)
        self._workers.add(entry)

    @override
    def describe(self, worker: Worker, layout: CacheLayout) -> None:
        entry = self._workers.entries[worker]
        if layout == entry.layout:
            return
        if layout.key_block_size != entry.key_block_size:
            self.restart(worker, {place.tier for place in entry.holders})
        entry.set_layout(layout)
        self._workers.forget_key_sizes(entry.model)
        self._holders.plan(entry)

    @override
    def layout_of(self, worker: Worker) -> CacheLayout:
        entry = self._workers.entries.get(worker)
        return CacheLayout() if entry is None else entry.layout

    @override
    def leave(self, worker: Worker) -> bool:
        entry = self._workers.entries.get(worker)
        if entry is not None:
            self._leave(entry)
        return entry is not None

    def _leave(self, entry: WorkerEntry) -> None:
        if (watcher := self.watchers.get(entry.worker)) is not None:
            watcher.on_lost("pod_left")
        self._unload(entry)

    def _unload(self, entry: WorkerEntry) -> None:
        for holder in (entry.announcer, *entry.holders.values()):
            self._holders.retire(holder)
        self._workers.remove(entry)

    @override
    def clear(self, worker: Worker, tiers: Collection[str]) -> None:
        entry = self._workers.entries.get(worker)
        if entry is None:
            return
        for place in [place for place in entry.holders if place.tier in tiers]:
            self._holders.retire(entry.holders.pop(place))

    @override
    def restart(self, worker: Worker, tiers: Collection[str]) -> None:
        self.clear(worker, tiers)
        entry = self._workers.entries.get(worker)
        if entry is not None:
            watcher = self.watchers.get(worker) if entry.key_block_size else None
            if watcher is not None:  # else the worker is only being described for the first time
                watcher.on_lost("restarted")
            self._holders.retire(entry.announcer)
            entry.announcer = self._holders.new_announcer(entry.scope)

    @override
    def evicted(self) -> Sequence[tuple[Worker, str]]:
        if not self.table.evicted_holders:
            return ()
        evicted_holders = set(self.table.evicted_holders)
        self.table.evicted_holders.clear()
        return [
            (entry.worker, place.tier)
            for entry in self._workers.all()
            for place, holder in entry.holders.items()
            if holder in evicted_holders
        ]

    # Events

    @override
    def store(
        self,
        worker: Worker,
        place: Place,
        hashes: Hashes,
        keys: array[int],
        *,
        new_copies: bool = True,
    ) -> int:
        entry = self._workers.entries[worker]
        holder = self._holders.holder_of(entry, place)
        refused = self.table.store(hashes, keys, holder, entry.announcer, new_copies)
        if self.watchers and (watcher := self.watchers.get(worker)) is not None:
            watcher.on_stored(keys)
        return refused

    @override
    def store_known(
        self,
        worker: Worker,
        place: Place,
        hashes: Hashes,
        *,
        new_copies: bool = True,
        last_blocks: int = 0,
    ) -> int:
        entry = self._workers.entries[worker]
        holder = self._holders.holder_of(entry, place)
        unknown = self.table.store_known(hashes, holder, entry.announcer, new_copies, last_blocks)
        if self.watchers and (watcher := self.watchers.get(worker)) is not None:
            keys = (self.table.key_of(each, entry.announcer) for each in hashes)
            watcher.on_stored([key for key in keys if key is not None])
        return unknown

    @override
    def remove(self, worker: Worker, place: Place, hashes: Hashes) -> int:
        entry = self._workers.entries.get(worker)
        holder = entry.holders.get(place) if entry else None
        return len(hashes) if holder is None else self.table.remove(hashes, holder)

    @override
    def limit_copies(
        self, worker: Worker, place: Place, hashes: Hashes, limits: Sequence[int]
    ) -> None:
        entry = self._workers.entries.get(worker)
        holder = entry.holders.get(place) if entry else None
        if holder is not None:
            self.table.limit_copies(hashes, array("Q", limits), holder)

    @override
    def key_of(self, worker: Worker, engine_hash: EngineHash) -> BlockKey | None:
        entry = self._workers.entries.get(worker)
        if entry is None:
            return None
        key = self.table.key_of(engine_hash, entry.announcer)
        return None if key is None else BlockKey(key)

    @override
    def held(self, worker: Worker, keys: array[int]) -> list[int]:
        entry = self._workers.entries.get(worker)
        holders = array("I", entry.holders.values() if entry else ())
        masks = self.table.lookup.holder_masks(keys, holders[:64])
        return [key for key, mask in zip(keys, masks, strict=True) if mask]

    def sweep(self, segments: int = 4) -> bool:
        """Free some of what retired holders left behind; True if there is more to do.

        segments: how many of the table's 256 segments to go through.
        """
        return not self._is_dumping and self.table.sweep(segments)

    # Requests

    @override
    def match(self, model: str, prompt: PromptBlocks) -> MemoryPrefixMatch:
        return self._matcher.match(model, prompt)

    @override
    def ranks_of(self, model: str, pod: str) -> Sequence[int]:
        return [entry.worker.rank for entry in self._workers.pods_of(model).get(pod, ())]

    @override
    def pods_of(self, model: str) -> Sequence[str]:
        return list(self._workers.pods_of(model))

    @override
    def models(self) -> Sequence[str]:
        return list(self._workers.models())

    @override
    def workers(self) -> Sequence[WorkerBlocks]:
        return [
            WorkerBlocks(
                *(entry.worker, entry.model, entry.blocks_by_tier(self.table.held_by)),
                entry.layout,
            )
            for entry in self._workers.all()
        ]

    @property
    def entries(self) -> Mapping[Worker, WorkerEntry]:
        """What is kept of each worker. Only this package changes it."""
        return self._workers.entries

    # Snapshots

    def dump(self) -> Iterator[dict[str, Any]]:
        """Return the index as `load` takes it, in records of bounded size.

        The dump shows the index as of the first record. No event may be applied before the last
        one; requests may be answered, and workers may leave. `sweep` does nothing meanwhile.
        """
        self._is_dumping = True
        try:
            table = self.table.dump()
            yield {
                "table": next(table),
                "tiers": self.tiers.names,
                "count_copies": self.table.count_copies,
                **self._workers.dump(),
            }
            yield from table
        finally:
            self._is_dumping = False

    @classmethod
    def load(
        cls, records: Iterator[dict[str, Any]], limit_bytes: int, tier_weights: Mapping[str, float]
    ) -> Self:
        """Return the index that was dumped.

        It may have been changed by anybody since. Raises ValueError if it does not fit into
        `limit_bytes`, and KeyError, TypeError or ValueError if a record cannot be right.
        """
        first = next(records)
        if type(first["count_copies"]) is not bool:
            raise TypeError("count_copies is true or false")
        dumped = DumpedTable(first["table"], limit_bytes)
        index = cls(limit_bytes, tier_weights, first["count_copies"])
        index.tiers.load(dumped_tiers(first["tiers"]))
        index.table.load(first["table"])
        for words, width in dumped.slots(records):
            index.table.load_slots(words, width)
        entries = list(dumped_entries(first, dumped))
        index._workers.load(first["numbers"], first["free"], entries)
        for entry in entries:
            index._holders.plan(entry)
        return index

    def __repr__(self) -> str:
        blocks, workers = self.table.block_count, len(self._workers.entries)
        return f"<{type(self).__name__} {blocks:,} blocks, {workers} workers>"
