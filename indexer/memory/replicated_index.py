"""`ReplicatedIndex`: the embedded index as one replica of several.

A worker is either *tracked*, because this replica applies its events, or *remote*, because another
one does. Changes of a tracked worker are pending until the store's writer drains them; the index
applies what other replicas have drained of theirs. Replicas exchange `Changes`: absolute values, by
holder id.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from typing_extensions import override

from indexer.holder_ids import ANNOUNCER, StableHolderIds
from indexer.memory.changes import Changes, PendingChanges, distinct
from indexer.memory.memory_index import MemoryIndex
from indexer.memory.tiers import DEFAULT_TIER_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from indexer.cache_layout import CacheLayout
    from indexer.holder_ids import HolderKey
    from indexer.memory.workers import WorkerEntry
    from indexer.types import Hashes, Place, Worker

_SEGMENTS = 256


class ReplicatedIndex(MemoryIndex):
    """A `MemoryIndex` that tracks changes of its own workers, and applies those of remote ones.

    Callers see workers in the order of their names, so that every replica answers alike.
    """

    def __init__(
        self,
        limit_bytes: int,
        tier_weights: Mapping[str, float] = DEFAULT_TIER_WEIGHTS,
        count_copies: bool = True,
    ) -> None:
        """Make an empty index; see `MemoryIndex`."""
        super().__init__(limit_bytes, tier_weights, count_copies)
        self._pending: dict[Worker, PendingChanges] = {}
        self._holder_ids: dict[Worker, StableHolderIds] = {}

    @override
    def join(self, worker: Worker, model: str) -> None:
        super().join(worker, model)
        self._workers.mark_unsorted(model)

    # Tracked workers

    def track(self, worker: Worker, holder_ids: StableHolderIds | None = None) -> None:
        """Track from now on what changes of `worker`, which must have joined.

        holder_ids: those by which other replicas know the worker; None to keep the ids that it
            has here, if any.
        """
        self._pending[worker] = PendingChanges()
        if holder_ids is not None or worker not in self._holder_ids:
            self._holder_ids[worker] = holder_ids or StableHolderIds()
        self.table.log_evictions = True

    def untrack(self, worker: Worker) -> None:
        """Stop tracking `worker`: another replica applies its events from now on."""
        self._pending.pop(worker, None)
        self.table.log_evictions = bool(self._pending)

    def pending_count(self, worker: Worker) -> int:
        """Return how many changes are pending, with repetitions; 0 if there is nothing to drain."""
        return len(self._pending.get(worker, ()))

    def requeue(self, worker: Worker, hashes: Hashes, keys: array[int]) -> None:
        """Let drained changes be pending again, because they may not have reached the store."""
        if (pending := self._pending.get(worker)) is not None:
            pending.add(hashes, keys)
            pending.ids_changed = True

    def requeue_all(self, worker: Worker) -> None:
        """Let all that the worker holds and has announced be pending."""
        if (pending := self._pending.get(worker)) is not None:
            holders, _ = self._holders_and_ids(worker)
            for segment in range(_SEGMENTS):
                pending.hashes.extend(self.table.names_in(segment, holders))
            pending.ids_changed = True

    def drain_changes(self, worker: Worker, limit: int = 2**63) -> Changes | None:
        """Return what has changed since the last call; None if nothing has.

        limit: engine hashes to take, and keys besides theirs; what is beyond stays pending.
        """
        self._track_evictions()
        pending = self._pending.get(worker)
        entry = self._workers.entries.get(worker)
        if not pending or entry is None:
            return None
        hashes, other_keys = pending.take(limit)
        holders, holder_ids = self._holders_and_ids(worker)
        names = distinct(self.table.names_of(hashes, holders))
        counts, rows = self.table.rows_of(names, holders, holder_ids)
        keys = distinct(other_keys + rows[::2])  # word 0 of each row is its block's key
        ids = self._holder_ids[worker]
        scored = [place for place in entry.holders if place.group >= 0]
        masks = self.table.lookup.holder_masks(
            keys, array("I", [entry.holders[place] for place in scored])
        )
        scored_ids = [ids.id_of(place) for place in scored]
        return Changes(names, counts, rows, keys, scored_ids, masks, ids.copy())

    def _holders_and_ids(self, worker: Worker) -> tuple[array[int], array[int]]:
        """Return the worker's holders, announcer included, and their ids, in the same order.

        A holder that has no id yet gets one.
        """
        entry, holder_ids = self._workers.entries[worker], self._holder_ids[worker]
        holder_keys: list[HolderKey] = [ANNOUNCER, *entry.holders]
        holders = array("I", [entry.announcer, *entry.holders.values()])
        return holders, array("I", map(holder_ids.id_of, holder_keys))

    def _track_evictions(self) -> None:
        """Let evicted mappings be pending for the tracked workers that held or announced them.

        The table evicts in the middle of any worker's event and knows no workers, so it logs the
        holders, and this finds out whose they are before changes are drained.
        """
        eviction_log = self.table.eviction_log
        if not eviction_log:
            return
        owners: dict[int, PendingChanges] = {}
        for worker, changes in self._pending.items():
            if (entry := self._workers.entries.get(worker)) is not None:
                owners.update(dict.fromkeys([entry.announcer, *entry.holders.values()], changes))
        for name, key, holders in eviction_log:
            for holder in holders:
                if (pending := owners.get(holder)) is not None:
                    pending.hashes.append(name)
                    pending.keys.append(key)  # no row leads to it any more
        eviction_log.clear()

    # Remote workers

    def unload(self, worker: Worker) -> None:
        """Forget the worker until it is loaded again. Its watcher goes on: it has not left."""
        if (entry := self._workers.entries.get(worker)) is not None:
            self._unload(entry)

    def rejoin(self, worker: Worker, model: str) -> None:
        """Let the worker hold nothing, as what it holds is about to be loaded or heard of anew.

        Its watcher goes on, unless it has served another model.
        """
        entry = self._workers.entries.get(worker)
        if entry is not None and entry.model == model:
            self._unload(entry)
        self.join(worker, model)

    def apply(
        self,
        worker: Worker,
        layout: CacheLayout,
        holder_ids: StableHolderIds,
        names: array[int],
        counts: array[int],
        rows: array[int],
    ) -> None:
        """Let a remote worker have under `names` exactly what the rows say.

        The worker must have joined. A holder whose id is not the one in `holder_ids` loses all it
        holds: the other replica has cleared it meanwhile. For the arrays see `Changes`. Raises
        ValueError if rows and counts do not fit together.
        """
        entry = self._workers.entries[worker]
        self.describe(worker, layout)
        self._replace_holder_ids(entry, holder_ids)
        holders = array("I", [self._holder_for(entry, key) for key in holder_ids.ids])
        self.table.assign(names, counts, rows, holders, array("I", holder_ids.ids.values()))

    def _replace_holder_ids(self, entry: WorkerEntry, holder_ids: StableHolderIds) -> None:
        """Take over a remote worker's holder ids, and retire the holders that have lost theirs.

        An id is never given twice, so an equal id means the same holder with nothing cleared in
        between. A holder without an id here is of unknown origin, and retires too.
        """
        current = self._holder_ids.get(entry.worker)
        if current is not None and current.ids == holder_ids.ids:
            return
        before = current.ids if current is not None else {}
        for key in [ANNOUNCER, *entry.holders]:
            if key not in before or before[key] != holder_ids.ids.get(key):
                self._release_holder(entry, key)
        self._holder_ids[entry.worker] = holder_ids.copy()

    def _release_holder(self, entry: WorkerEntry, key: HolderKey) -> None:
        if key is None:
            self._holders.retire(entry.announcer)
            entry.announcer = self._holders.new_announcer(entry.scope)
        else:
            self._holders.retire(entry.holders.pop(key))

    def _holder_for(self, entry: WorkerEntry, key: HolderKey) -> int:
        return entry.announcer if key is None else self._holders.holder_of(entry, key)

    def workers_of(self, model: str) -> list[Worker]:
        """Return all workers that serve `model`, tracked and remote."""
        ranks_by_pod = self._workers.pods_of(model)
        return [entry.worker for ranks in ranks_by_pod.values() for entry in ranks]

    def holder_ids_of(self, worker: Worker) -> StableHolderIds | None:
        """Return the worker's holder ids, complete if it is tracked; None if it has none here."""
        if worker in self._pending and worker in self._workers.entries:
            self._holders_and_ids(worker)
        return self._holder_ids.get(worker)

    # Events of tracked workers

    @override
    def describe(self, worker: Worker, layout: CacheLayout) -> None:
        if layout == self.layout_of(worker):
            return
        super().describe(worker, layout)
        if (pending := self._pending.get(worker)) is not None:
            pending.ids_changed = True  # the layout is written along with the ids

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
        refused = super().store(worker, place, hashes, keys, new_copies=new_copies)
        if (pending := self._pending.get(worker)) is not None:
            pending.hashes.extend(hashes)
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
        unknown = super().store_known(
            worker, place, hashes, new_copies=new_copies, last_blocks=last_blocks
        )
        if (pending := self._pending.get(worker)) is not None:
            pending.hashes.extend(hashes)
        return unknown

    @override
    def remove(self, worker: Worker, place: Place, hashes: Hashes) -> int:
        self._track_before_removal(worker, hashes)
        return super().remove(worker, place, hashes)

    @override
    def limit_copies(
        self, worker: Worker, place: Place, hashes: Hashes, limits: Sequence[int]
    ) -> None:
        self._track_before_removal(worker, hashes)
        super().limit_copies(worker, place, hashes, limits)

    def _track_before_removal(self, worker: Worker, hashes: Hashes) -> None:
        """Let names and keys be pending that no row will tell after the removal."""
        if (pending := self._pending.get(worker)) is not None and worker in self._workers.entries:
            holders, holder_ids = self._holders_and_ids(worker)
            names = self.table.names_of(hashes, holders)
            _, rows = self.table.rows_of(names, holders, holder_ids)
            pending.add(names, rows[::2])

    @override
    def clear(self, worker: Worker, tiers: Collection[str]) -> None:
        super().clear(worker, tiers)
        if (pending := self._pending.get(worker)) is not None:
            holder_ids = self._holder_ids[worker]
            cleared = [key for key in holder_ids.ids if key is not None and key.tier in tiers]
            holder_ids.release(cleared)  # replicas drop what is held under an id that is gone
            pending.ids_changed |= bool(cleared)

    @override
    def restart(self, worker: Worker, tiers: Collection[str]) -> None:
        super().restart(worker, tiers)
        if (pending := self._pending.get(worker)) is not None:
            self._holder_ids[worker].release([ANNOUNCER])
            pending.ids_changed = True

    @override
    def _unload(self, entry: WorkerEntry) -> None:
        super()._unload(entry)
        self._holder_ids.pop(entry.worker, None)
        self.untrack(entry.worker)
