"""The embedded index as one copy of a shared one: what changes is noted, and can be put elsewhere.

A worker is either *noted*, because its events are applied to this copy, or it is *put* here as
another copy has it. What passes between copies are `Changes`: absolute values, so that putting
them twice, or onto something newer that they are followed by, does no harm.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from indexer.holder_ids import KNOWLEDGE, StableHolderIds
from indexer.memory import DEFAULT_TIER_WEIGHTS, MemoryIndex

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from indexer.cache_layout import CacheLayout
    from indexer.holder_ids import HolderKey
    from indexer.match import WorkerEntry
    from indexer.types import Hashes, Place, Worker

_SEGMENTS = 256


class Changes(NamedTuple):
    """What a worker has now under the names that have changed; see `indexer.kernel.rows` for rows.

    names: 'Q'. counts: 'H', rows of each name. rows: 'Q'. keys: 'Q', the blocks that may have
    changed. scored: the seats that count in scores. masks: 'Q', for each key one bit for each seat
    of `scored` that holds it. seats: as of now.
    """

    names: array[int]
    counts: array[int]
    rows: array[int]
    keys: array[int]
    scored: list[int]
    masks: array[int]
    holder_ids: StableHolderIds


@dataclass(slots=True)
class PendingChanges:
    """What has changed of a worker, by engine hash and by block; with repetitions."""

    hashes: array[int] = field(default_factory=lambda: array("Q"))
    keys: array[int] = field(default_factory=lambda: array("Q"))
    ids_changed: bool = True

    def __bool__(self) -> bool:
        return bool(self.hashes or self.keys or self.ids_changed)


class ReplicatedIndex(MemoryIndex):
    """See the module, and `MemoryIndex`."""

    def __init__(
        self,
        limit_bytes: int,
        tier_weights: Mapping[str, float] = DEFAULT_TIER_WEIGHTS,
        count_copies: bool = True,
    ) -> None:
        super().__init__(limit_bytes, tier_weights, count_copies)
        self._pending: dict[Worker, PendingChanges] = {}
        self._holder_ids: dict[Worker, StableHolderIds] = {}

    def join(self, worker: Worker, model: str) -> None:
        """See `Index.join`; by name instead, so that every copy answers in the same order."""
        super().join(worker, model)
        pods = self._pods[model]
        pods[worker.pod].sort(key=lambda entry: entry.worker)
        self._pods[model] = dict(sorted(pods.items()))
        self._entries = dict(sorted(self._entries.items()))

    # Workers whose events are applied here

    def track(self, worker: Worker, holder_ids: StableHolderIds | None = None) -> None:
        """Note from now on what changes of `worker`, which must have joined.

        seats: where others have it already, if anywhere.
        """
        self._pending[worker] = PendingChanges()
        if holder_ids is not None or worker not in self._holder_ids:
            self._holder_ids[worker] = holder_ids or StableHolderIds()
        self.table.log_evictions = True

    def untrack(self, worker: Worker) -> None:
        """The worker's events are applied elsewhere from now on."""
        self._pending.pop(worker, None)
        self.table.log_evictions = bool(self._pending)

    def pending_count(self, worker: Worker) -> int:
        """How many hashes and blocks are noted, with repetitions; 0 if there is nothing to take."""
        pending = self._pending.get(worker)
        return len(pending.hashes) + len(pending.keys) + pending.ids_changed if pending else 0

    def requeue(self, worker: Worker, hashes: Hashes, keys: array[int]) -> None:
        """These may not have come to where they were to be put."""
        if (pending := self._pending.get(worker)) is not None:
            pending.hashes.extend(hashes)
            pending.keys.extend(keys)
            pending.ids_changed = True

    def requeue_all(self, worker: Worker) -> None:
        """All there is of the worker is to be put elsewhere."""
        if (pending := self._pending.get(worker)) is not None:
            holders, _ = self._holders_and_ids(worker)
            for segment in range(_SEGMENTS):
                pending.hashes.extend(self.table.names_in(segment, holders))
            pending.ids_changed = True

    def drain_changes(self, worker: Worker, most: int = 2**63) -> Changes | None:
        """What has changed since the last call, None if nothing has.

        most: hashes, and blocks besides theirs, to be taken; what is beyond remains noted.
        """
        self._track_evictions()
        pending = self._pending.get(worker)
        entry = self._entries.get(worker)
        if not pending or entry is None:
            return None
        hashes, others = _distinct(pending.hashes), _distinct(pending.keys)
        self._pending[worker] = PendingChanges(hashes[most:], others[most:], ids_changed=False)
        holders, holder_ids = self._holders_and_ids(worker)
        names = _distinct(self.table.names_of(hashes[:most], holders))
        counts, rows = self.table.rows_of(names, holders, holder_ids)
        keys = _distinct(others[:most] + rows[::2])
        of_worker = self._holder_ids[worker]
        scored = [place for place in entry.holders if place.group >= 0]
        masks = self.table.holder_masks(
            keys, array("I", [entry.holders[place] for place in scored])
        )
        return Changes(
            names, counts, rows, keys, [of_worker.id_of(p) for p in scored], masks, of_worker.copy()
        )

    def _holders_and_ids(self, worker: Worker) -> tuple[array[int], array[int]]:
        entry, holder_ids = self._entries[worker], self._holder_ids[worker]
        holder_keys: list[HolderKey] = [KNOWLEDGE, *entry.holders]
        holders = array("I", [entry.announcer, *entry.holders.values()])
        return holders, array("I", map(holder_ids.id_of, holder_keys))

    def _track_evictions(self) -> None:
        eviction_log = self.table.eviction_log
        if not eviction_log:
            return
        owners = {
            holder: pending
            for worker, pending in self._pending.items()
            for holder in self._holders_by_worker(worker)
        }
        for name, key, holders in eviction_log:
            for holder in holders:
                if (pending := owners.get(holder)) is not None:
                    pending.hashes.append(name)
                    pending.keys.append(key)
        eviction_log.clear()

    def _holders_by_worker(self, worker: Worker) -> Sequence[int]:
        entry = self._entries.get(worker)
        return [] if entry is None else [entry.announcer, *entry.holders.values()]

    # Workers whose events are applied elsewhere

    def apply(
        self,
        worker: Worker,
        layout: CacheLayout,
        holder_ids: StableHolderIds,
        names: array[int],
        counts: array[int],
        rows: array[int],
    ) -> None:
        """The worker has under `names` what the rows say, and what had other seats is gone.

        The worker must have joined. Raises ValueError if rows and counts do not fit.
        """
        entry = self._entries[worker]
        self.describe(worker, layout)
        self._replace_holder_ids(entry, holder_ids)
        known = [
            (self._holder_for(entry, key), holder_id) for key, holder_id in holder_ids.ids.items()
        ]
        self.table.assign(
            names,
            counts,
            rows,
            array("I", [holder for holder, _ in known]),
            array("I", [holder_id for _, holder_id in known]),
        )

    def _replace_holder_ids(self, entry: WorkerEntry, holder_ids: StableHolderIds) -> None:
        known = self._holder_ids.get(entry.worker)
        if known is None or known.ids != holder_ids.ids:
            before = known.ids if known is not None else {}
            for key in [KNOWLEDGE, *entry.holders]:
                if key not in before or before[key] != holder_ids.ids.get(key):
                    self._release_holder(entry, key)
            self._holder_ids[entry.worker] = holder_ids.copy()

    def _release_holder(self, entry: WorkerEntry, key: HolderKey) -> None:
        if key is None:
            self._retire(entry.announcer)
            entry.announcer = self._new_holder(entry.scope)
        else:
            self._retire(entry.holders.pop(key))

    def _holder_for(self, entry: WorkerEntry, key: HolderKey) -> int:
        return entry.announcer if key is None else self._holder_of(entry.worker, key)[0]

    def workers_of(self, model: str) -> list[Worker]:
        """All that serve the model, wherever their events are applied."""
        return [c.worker for of_pod in self._pods.get(model, {}).values() for c in of_pod]

    def holder_ids_of(self, worker: Worker) -> StableHolderIds | None:
        """The worker's seats, of all its places if it is noted; None if none are known here."""
        if worker in self._pending and worker in self._entries:
            self._holders_and_ids(worker)
        return self._holder_ids.get(worker)

    # Events; see `Index` for what they mean

    def describe(self, worker: Worker, layout: CacheLayout) -> None:
        """See `Index.describe`."""
        if layout == self.layout_of(worker):
            return
        super().describe(worker, layout)
        if (pending := self._pending.get(worker)) is not None:
            pending.ids_changed = True  # it is told along with them

    def store(
        self,
        worker: Worker,
        place: Place,
        hashes: Hashes,
        keys: array[int],
        *,
        new_copies: bool = True,
    ) -> None:
        """See `Index.store`."""
        super().store(worker, place, hashes, keys, new_copies=new_copies)
        if (pending := self._pending.get(worker)) is not None:
            pending.hashes.extend(hashes)

    def store_known(
        self,
        worker: Worker,
        place: Place,
        hashes: Hashes,
        *,
        new_copies: bool = True,
        most: int = 0,
    ) -> int:
        """See `Index.store_known`."""
        unknown = super().store_known(worker, place, hashes, new_copies=new_copies, most=most)
        if (pending := self._pending.get(worker)) is not None:
            pending.hashes.extend(hashes)
        return unknown

    def remove(self, worker: Worker, place: Place, hashes: Hashes) -> int:
        """See `Index.remove`."""
        self._track_before_removal(worker, hashes)
        return super().remove(worker, place, hashes)

    def limit_copies(
        self, worker: Worker, place: Place, hashes: Hashes, most: Sequence[int]
    ) -> None:
        """See `Index.limit_copies`."""
        self._track_before_removal(worker, hashes)
        super().limit_copies(worker, place, hashes, most)

    def _track_before_removal(self, worker: Worker, hashes: Hashes) -> None:
        """What is gone afterwards has no key to tell."""
        if (pending := self._pending.get(worker)) is not None and worker in self._entries:
            holders, holder_ids = self._holders_and_ids(worker)
            names = self.table.names_of(hashes, holders)
            pending.keys.extend(self.table.rows_of(names, holders, holder_ids)[1][::2])
            pending.hashes.extend(names)

    def clear(self, worker: Worker, tiers: Collection[str]) -> None:
        """See `Index.clear`."""
        super().clear(worker, tiers)
        if (pending := self._pending.get(worker)) is not None:
            holder_ids = self._holder_ids[worker]
            gone = [o for o in holder_ids.ids if o is not None and o.tier in tiers]
            holder_ids.release(gone)
            pending.ids_changed |= bool(gone)

    def restart(self, worker: Worker, tiers: Collection[str]) -> None:
        """See `Index.restart`."""
        super().restart(worker, tiers)
        if (pending := self._pending.get(worker)) is not None:
            self._holder_ids[worker].release([KNOWLEDGE])
            pending.ids_changed = True

    def _leave(self, entry: WorkerEntry) -> None:
        super()._leave(entry)
        self._holder_ids.pop(entry.worker, None)
        self.untrack(entry.worker)

    def __repr__(self) -> str:
        return f"<SharedIndex {self.table.block_count:,} blocks, {len(self._entries)} workers>"


def _distinct(values: array[int]) -> array[int]:
    return array("Q", np.unique(np.asarray(values, dtype=np.uint64)).tobytes())
