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

from indexer.memory import DEFAULT_TIER_WEIGHTS, MemoryIndex
from indexer.seats import KNOWLEDGE, Seats

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from indexer.groups import CacheLayout
    from indexer.match import Cache
    from indexer.seats import Occupant
    from indexer.types import Hashes, Place, Worker

_SEGMENTS = 256


class Changes(NamedTuple):
    """What a worker has now under the names that have changed; see `indexer.rows` for rows.

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
    seats: Seats


@dataclass(slots=True)
class Notes:
    """What has changed of a worker, by engine hash and by block; with repetitions."""

    hashes: array[int] = field(default_factory=lambda: array("Q"))
    keys: array[int] = field(default_factory=lambda: array("Q"))
    seats_changed: bool = True

    def __bool__(self) -> bool:
        return bool(self.hashes or self.keys or self.seats_changed)


class SharedIndex(MemoryIndex):
    """See the module, and `MemoryIndex`."""

    def __init__(
        self,
        limit_bytes: int,
        tier_weights: Mapping[str, float] = DEFAULT_TIER_WEIGHTS,
        count_copies: bool = True,
    ) -> None:
        super().__init__(limit_bytes, tier_weights, count_copies)
        self._notes: dict[Worker, Notes] = {}
        self._seats: dict[Worker, Seats] = {}

    def join(self, worker: Worker, model: str) -> None:
        """See `Index.join`; by name instead, so that every copy answers in the same order."""
        super().join(worker, model)
        pods = self._pods[model]
        pods[worker.pod].sort(key=lambda cache: cache.worker)
        self._pods[model] = dict(sorted(pods.items()))
        self._caches = dict(sorted(self._caches.items()))

    # Workers whose events are applied here

    def note(self, worker: Worker, seats: Seats | None = None) -> None:
        """Note from now on what changes of `worker`, which must have joined.

        seats: where others have it already, if anywhere.
        """
        self._notes[worker] = Notes()
        if seats is not None or worker not in self._seats:
            self._seats[worker] = seats or Seats()
        self.table.note_evictions = True

    def note_no_more(self, worker: Worker) -> None:
        """The worker's events are applied elsewhere from now on."""
        self._notes.pop(worker, None)
        self.table.note_evictions = bool(self._notes)

    def noted(self, worker: Worker) -> int:
        """How many hashes and blocks are noted, with repetitions; 0 if there is nothing to take."""
        notes = self._notes.get(worker)
        return len(notes.hashes) + len(notes.keys) + notes.seats_changed if notes else 0

    def note_again(self, worker: Worker, hashes: Hashes, keys: array[int]) -> None:
        """These may not have come to where they were to be put."""
        if (notes := self._notes.get(worker)) is not None:
            notes.hashes.extend(hashes)
            notes.keys.extend(keys)
            notes.seats_changed = True

    def note_everything(self, worker: Worker) -> None:
        """All there is of the worker is to be put elsewhere."""
        if (notes := self._notes.get(worker)) is not None:
            members, _ = self._members_of(worker)
            for segment in range(_SEGMENTS):
                notes.hashes.extend(self.table.names_in(segment, members))
            notes.seats_changed = True

    def take(self, worker: Worker, most: int = 2**63) -> Changes | None:
        """What has changed since the last call, None if nothing has.

        most: hashes, and blocks besides theirs, to be taken; what is beyond remains noted.
        """
        self._note_evictions()
        notes = self._notes.get(worker)
        cache = self._caches.get(worker)
        if not notes or cache is None:
            return None
        hashes, others = _distinct(notes.hashes), _distinct(notes.keys)
        self._notes[worker] = Notes(hashes[most:], others[most:], seats_changed=False)
        members, seats = self._members_of(worker)
        names = _distinct(self.table.names_of(hashes[:most], members))
        counts, rows = self.table.rows_of(names, members, seats)
        keys = _distinct(others[:most] + rows[::2])
        of_worker = self._seats[worker]
        scored = [place for place in cache.members if place.group >= 0]
        masks = self.table.holding(keys, array("I", [cache.members[place] for place in scored]))
        return Changes(
            names, counts, rows, keys, [of_worker.of(p) for p in scored], masks, of_worker.copy()
        )

    def _members_of(self, worker: Worker) -> tuple[array[int], array[int]]:
        cache, seats = self._caches[worker], self._seats[worker]
        occupants: list[Occupant] = [KNOWLEDGE, *cache.members]
        members = array("I", [cache.knowing, *cache.members.values()])
        return members, array("I", map(seats.of, occupants))

    def _note_evictions(self) -> None:
        evictions = self.table.evictions
        if not evictions:
            return
        owners = {
            member: notes
            for worker, notes in self._notes.items()
            for member in self._members_by_worker(worker)
        }
        for name, key, members in evictions:
            for member in members:
                if (notes := owners.get(member)) is not None:
                    notes.hashes.append(name)
                    notes.keys.append(key)
        evictions.clear()

    def _members_by_worker(self, worker: Worker) -> Sequence[int]:
        cache = self._caches.get(worker)
        return [] if cache is None else [cache.knowing, *cache.members.values()]

    # Workers whose events are applied elsewhere

    def put(
        self,
        worker: Worker,
        layout: CacheLayout,
        seats: Seats,
        names: array[int],
        counts: array[int],
        rows: array[int],
    ) -> None:
        """The worker has under `names` what the rows say, and what had other seats is gone.

        The worker must have joined. Raises ValueError if rows and counts do not fit.
        """
        cache = self._caches[worker]
        self.describe(worker, layout)
        self._reseat(cache, seats)
        known = [
            (self._member_in(cache, occupant), seat) for occupant, seat in seats.numbers.items()
        ]
        self.table.assign(
            names,
            counts,
            rows,
            array("I", [member for member, _ in known]),
            array("I", [seat for _, seat in known]),
        )

    def _reseat(self, cache: Cache, seats: Seats) -> None:
        known = self._seats.get(cache.worker)
        if known is None or known.numbers != seats.numbers:
            before = known.numbers if known is not None else {}
            for occupant in [KNOWLEDGE, *cache.members]:
                if occupant not in before or before[occupant] != seats.numbers.get(occupant):
                    self._vacate(cache, occupant)
            self._seats[cache.worker] = seats.copy()

    def _vacate(self, cache: Cache, occupant: Occupant) -> None:
        if occupant is None:
            self._retire(cache.knowing)
            cache.knowing = self._member(cache.scope)
        else:
            self._retire(cache.members.pop(occupant))

    def _member_in(self, cache: Cache, occupant: Occupant) -> int:
        return cache.knowing if occupant is None else self._holder(cache.worker, occupant)[0]

    def workers_of(self, model: str) -> list[Worker]:
        """All that serve the model, wherever their events are applied."""
        return [c.worker for of_pod in self._pods.get(model, {}).values() for c in of_pod]

    def seats_of(self, worker: Worker) -> Seats | None:
        """The worker's seats, of all its places if it is noted; None if none are known here."""
        if worker in self._notes and worker in self._caches:
            self._members_of(worker)
        return self._seats.get(worker)

    # Events; see `Index` for what they mean

    def describe(self, worker: Worker, layout: CacheLayout) -> None:
        """See `Index.describe`."""
        if layout == self.layout_of(worker):
            return
        super().describe(worker, layout)
        if (notes := self._notes.get(worker)) is not None:
            notes.seats_changed = True  # it is told along with them

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
        if (notes := self._notes.get(worker)) is not None:
            notes.hashes.extend(hashes)

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
        if (notes := self._notes.get(worker)) is not None:
            notes.hashes.extend(hashes)
        return unknown

    def remove(self, worker: Worker, place: Place, hashes: Hashes) -> int:
        """See `Index.remove`."""
        self._note_before_removal(worker, hashes)
        return super().remove(worker, place, hashes)

    def limit_copies(
        self, worker: Worker, place: Place, hashes: Hashes, most: Sequence[int]
    ) -> None:
        """See `Index.limit_copies`."""
        self._note_before_removal(worker, hashes)
        super().limit_copies(worker, place, hashes, most)

    def _note_before_removal(self, worker: Worker, hashes: Hashes) -> None:
        """What is gone afterwards has no key to tell."""
        if (notes := self._notes.get(worker)) is not None and worker in self._caches:
            members, seats = self._members_of(worker)
            names = self.table.names_of(hashes, members)
            notes.keys.extend(self.table.rows_of(names, members, seats)[1][::2])
            notes.hashes.extend(names)

    def clear(self, worker: Worker, tiers: Collection[str]) -> None:
        """See `Index.clear`."""
        super().clear(worker, tiers)
        if (notes := self._notes.get(worker)) is not None:
            seats = self._seats[worker]
            gone = [o for o in seats.numbers if o is not None and o.tier in tiers]
            seats.vacate(gone)
            notes.seats_changed |= bool(gone)

    def restart(self, worker: Worker, tiers: Collection[str]) -> None:
        """See `Index.restart`."""
        super().restart(worker, tiers)
        if (notes := self._notes.get(worker)) is not None:
            self._seats[worker].vacate([KNOWLEDGE])
            notes.seats_changed = True

    def _leave(self, cache: Cache) -> None:
        super()._leave(cache)
        self._seats.pop(cache.worker, None)
        self.note_no_more(cache.worker)

    def __repr__(self) -> str:
        return f"<SharedIndex {self.table.block_count:,} blocks, {len(self._caches)} workers>"


def _distinct(values: array[int]) -> array[int]:
    return array("Q", np.unique(np.asarray(values, dtype=np.uint64)).tobytes())
