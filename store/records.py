"""The forms in which the store keeps things: msgpack, but for what scripts take apart."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgpack

from indexer import CacheLayout, Place, StableHolderIds, TrustState, TrustStatus, Worker

if TYPE_CHECKING:
    from indexer import Changes


@dataclass(frozen=True)
class WorkerRecord:
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
    status: TrustStatus
    layout: CacheLayout = field(default_factory=CacheLayout)
    places: dict[int, Place] = field(default_factory=dict)
    shard_stamps: dict[int, str] = field(default_factory=dict)
    registry: str = ""
    scheme: str = ""

    @cached_property
    def packed_layout(self) -> bytes:
        """The same for workers whose caches are divided alike."""
        return pack(self.layout.dump())

    def pack(self) -> bytes:
        """What `unpack` takes."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return pack({**values, "layout": self.layout.dump()})

    @classmethod
    def unpack(cls, blob: bytes) -> WorkerRecord:
        """The standing that was packed."""
        values = unpack(blob)
        values["worker"] = Worker(*values["worker"])
        state, *rest = values["status"]
        values["status"] = TrustStatus(TrustState(state), *rest)
        values["layout"] = CacheLayout.load(values["layout"])
        values["places"] = {slot: Place(*place) for slot, place in values["places"].items()}
        return cls(**values)


@dataclass(frozen=True)
class JournalEntry:
    """One entry of the journal: what a worker has now under some names. left: it was forgotten.

    seats: as `StableHolderIds.dump` says, and the next number. names, counts, rows: see `indexer.Changes`.
    """

    worker: Worker
    removed: bool = False
    standing: WorkerRecord | None = None
    holder_ids: StableHolderIds = field(default_factory=StableHolderIds)
    names: array[int] = field(default_factory=lambda: array("Q"))
    counts: array[int] = field(default_factory=lambda: array("H"))
    rows: array[int] = field(default_factory=lambda: array("Q"))

    @classmethod
    def of(
        cls, standing: WorkerRecord, seats: StableHolderIds, changes: Changes | None
    ) -> JournalEntry:
        """What is written of a worker now."""
        if changes is None:
            return cls(standing.worker, standing=standing, holder_ids=seats)
        words = (changes.names, changes.counts, changes.rows)
        return cls(standing.worker, False, standing, changes.holder_ids, *words)  # noqa: FBT003

    def pack(self) -> bytes:
        """What `unpack` takes."""
        standing = None if self.standing is None else self.standing.pack()
        return pack(
            [
                tuple(self.worker),
                self.removed,
                standing,
                [self.holder_ids.dump(), self.holder_ids.next],
                self.names.tobytes(),
                self.counts.tobytes(),
                self.rows.tobytes(),
            ]
        )

    @classmethod
    def unpack(cls, blob: bytes) -> JournalEntry:
        """The entry that was packed."""
        worker, left, standing, seats, *words = unpack(blob)
        names, counts, rows = map(array, "QHQ", words)
        return cls(
            Worker(*worker),
            left,
            None if standing is None else WorkerRecord.unpack(standing),
            StableHolderIds.load(*seats),
            names,
            counts,
            rows,
        )


@dataclass
class HandoverState:
    """What another owner of a worker needs to go on.

    stream: as its owner dumped it, None if it cannot be gone on with. layout: of its cache. slots:
    of seats in use; retired: of seats that were left, whose bits are still to be cleared.
    scheme: of block keys.
    """

    stream: dict[str, Any] | None
    layout: CacheLayout
    holder_ids: StableHolderIds
    bits: dict[int, int]
    retired_bits: dict[int, int]
    shard_stamps: dict[int, str]
    registry: str
    scheme: str

    def pack(self) -> bytes:
        """What `unpack` takes."""
        seats = [self.holder_ids.dump(), self.holder_ids.next]
        slots = [self.bits, self.retired_bits, self.shard_stamps, self.registry]
        return pack([self.stream, self.layout.dump(), seats, *slots, self.scheme])

    @classmethod
    def unpack(cls, blob: bytes) -> HandoverState:
        """The state that was packed."""
        stream, layout, seats, *others = unpack(blob)
        return cls(stream, CacheLayout.load(layout), StableHolderIds.load(*seats), *others)


@dataclass(frozen=True)
class Garbage:
    """A generation nobody needs. slots: label -> slot, of `registry`.

    reusable: whether they may be allotted again. since: seconds since 1970, by the store.
    """

    generation: str
    home: int
    model: str
    bits: dict[str, int]
    registry: str
    reusable: bool
    since: int

    @classmethod
    def unpack(cls, generation: bytes, home: int, blob: bytes) -> Garbage:
        """What the scripts have put aside."""
        _, model, slots, reusable, since = msgpack.unpackb(blob, raw=True, strict_map_key=False)
        registry, named = unpack(slots) if slots else ("", {})
        name = generation.decode()
        return cls(name, home, model.decode(), named, registry, bool(reusable), since)


def pack(value: Any) -> bytes:
    """As msgpack."""
    blob: bytes = msgpack.packb(value)
    return blob


def unpack(blob: bytes) -> Any:
    """From msgpack, with tuples for arrays inside."""
    return msgpack.unpackb(blob, strict_map_key=False)
