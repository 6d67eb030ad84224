"""The forms in which the store keeps things: msgpack, but for what scripts take apart."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack

from indexer import CacheLayout, Place, Seats, Worker

if TYPE_CHECKING:
    from indexer import Changes


class Claim(NamedTuple):
    """How much to trust what is claimed of a worker, in the words of its owner.

    state, reason: as the owner says. as_of: number of the last frame applied, None before any.
    """

    state: str
    reason: str
    as_of: int | None


@dataclass(frozen=True)
class Standing:
    """What is to be known of a worker along with its blocks.

    scheme: of its block keys. endpoint: of the source it speaks through. owner: the replica that
    says so. layout: of its cache. places: slot -> place.
    vector: shard -> what was written there last, for the shards other than its home. registry: that
    the slots are of.
    """

    worker: Worker
    model: str
    endpoint: str
    owner: str
    generation: str
    epoch: int
    revision: int
    claim: Claim
    layout: CacheLayout = field(default_factory=CacheLayout)
    places: dict[int, Place] = field(default_factory=dict)
    vector: dict[int, str] = field(default_factory=dict)
    registry: str = ""
    scheme: str = ""

    @cached_property
    def cache(self) -> bytes:
        """The same for workers whose caches are divided alike."""
        return packed(self.layout.dump())

    def pack(self) -> bytes:
        """What `unpack` takes."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return packed({**values, "layout": self.layout.dump()})

    @classmethod
    def unpack(cls, blob: bytes) -> Standing:
        """The standing that was packed."""
        values = unpacked(blob)
        values["worker"] = Worker(*values["worker"])
        values["claim"] = Claim(*values["claim"])
        values["layout"] = CacheLayout.load(values["layout"])
        values["places"] = {slot: Place(*place) for slot, place in values["places"].items()}
        return cls(**values)


@dataclass(frozen=True)
class Entry:
    """One entry of the journal: what a worker has now under some names. left: it was forgotten.

    seats: as `Seats.dump` says, and the next number. names, counts, rows: see `indexer.Changes`.
    """

    worker: Worker
    left: bool = False
    standing: Standing | None = None
    seats: Seats = field(default_factory=Seats)
    names: array[int] = field(default_factory=lambda: array("Q"))
    counts: array[int] = field(default_factory=lambda: array("H"))
    rows: array[int] = field(default_factory=lambda: array("Q"))

    @classmethod
    def of(cls, standing: Standing, seats: Seats, changes: Changes | None) -> Entry:
        """What is written of a worker now."""
        if changes is None:
            return cls(standing.worker, standing=standing, seats=seats)
        words = (changes.names, changes.counts, changes.rows)
        return cls(standing.worker, False, standing, changes.seats, *words)  # noqa: FBT003

    def pack(self) -> bytes:
        """What `unpack` takes."""
        standing = None if self.standing is None else self.standing.pack()
        return packed(
            [
                tuple(self.worker),
                self.left,
                standing,
                [self.seats.dump(), self.seats.next],
                self.names.tobytes(),
                self.counts.tobytes(),
                self.rows.tobytes(),
            ]
        )

    @classmethod
    def unpack(cls, blob: bytes) -> Entry:
        """The entry that was packed."""
        worker, left, standing, seats, *words = unpacked(blob)
        names, counts, rows = map(array, "QHQ", words)
        return cls(
            Worker(*worker),
            left,
            None if standing is None else Standing.unpack(standing),
            Seats.load(*seats),
            names,
            counts,
            rows,
        )


@dataclass
class State:
    """What another owner of a worker needs to go on.

    stream: as its owner dumped it, None if it cannot be gone on with. layout: of its cache. slots:
    of seats in use; retired: of seats that were left, whose bits are still to be cleared.
    scheme: of block keys.
    """

    stream: dict[str, Any] | None
    layout: CacheLayout
    seats: Seats
    slots: dict[int, int]
    retired: dict[int, int]
    vector: dict[int, str]
    registry: str
    scheme: str

    def pack(self) -> bytes:
        """What `unpack` takes."""
        seats = [self.seats.dump(), self.seats.next]
        slots = [self.slots, self.retired, self.vector, self.registry]
        return packed([self.stream, self.layout.dump(), seats, *slots, self.scheme])

    @classmethod
    def unpack(cls, blob: bytes) -> State:
        """The state that was packed."""
        stream, layout, seats, *others = unpacked(blob)
        return cls(stream, CacheLayout.load(layout), Seats.load(*seats), *others)


@dataclass(frozen=True)
class Garbage:
    """A generation nobody needs. slots: label -> slot, of `registry`.

    reusable: whether they may be allotted again. since: seconds since 1970, by the store.
    """

    generation: str
    home: int
    model: str
    slots: dict[str, int]
    registry: str
    reusable: bool
    since: int

    @classmethod
    def unpack(cls, generation: bytes, home: int, blob: bytes) -> Garbage:
        """What the scripts have put aside."""
        _, model, slots, reusable, since = msgpack.unpackb(blob, raw=True, strict_map_key=False)
        registry, named = unpacked(slots) if slots else ("", {})
        name = generation.decode()
        return cls(name, home, model.decode(), named, registry, bool(reusable), since)


def packed(value: Any) -> bytes:
    """As msgpack."""
    blob: bytes = msgpack.packb(value)
    return blob


def unpacked(blob: bytes) -> Any:
    """From msgpack, with tuples for arrays inside."""
    return msgpack.unpackb(blob, strict_map_key=False)
