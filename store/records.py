"""The values that the store keeps, as msgpack. Decoding a malformed one raises StoreError."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgpack

from indexer import CacheLayout, Place, StableHolderIds, TrustState, TrustStatus, Worker
from store.errors import decoding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from indexer import Changes


@dataclass(frozen=True)
class WorkerRecord:
    """What every replica knows of a worker along with its blocks."""

    worker: Worker
    model: str
    endpoint: str
    """Of the source through which the worker publishes."""
    owner: str
    """Identity of the replica that wrote the record."""
    generation: str
    epoch: int
    revision: int
    status: TrustStatus
    layout: CacheLayout = field(default_factory=CacheLayout)
    places: dict[int, Place] = field(default_factory=dict)
    """Bit -> place."""
    shard_stamps: dict[int, str] = field(default_factory=dict)
    """Shard -> stamp of the last write there, for shards other than the worker's home."""
    registry: str = ""
    """Registry that allocated the bits."""
    scheme: str = ""
    """Name of the scheme of the worker's block keys."""

    @cached_property
    def packed_layout(self) -> bytes:
        """Equal for workers with equal layouts."""
        return pack(self.layout.dump())

    def pack(self) -> bytes:
        """Return what `unpack` takes."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return pack({**values, "layout": self.layout.dump()})

    @classmethod
    def unpack(cls, blob: bytes) -> WorkerRecord:
        """Return the record that was packed."""
        with decoding("worker record"):
            values = unpack(blob)
            values["worker"] = Worker(*values["worker"])
            state, *rest = values["status"]
            values["status"] = TrustStatus(TrustState(state), *rest)
            values["layout"] = CacheLayout.load(values["layout"])
            values["places"] = {bit: Place(*place) for bit, place in values["places"].items()}
            return cls(**values)


@dataclass(frozen=True)
class JournalEntry:
    """What a worker holds now under the engine hashes that have changed, or that it was removed."""

    worker: Worker
    removed: bool = False
    record: WorkerRecord | None = None
    """None if the worker was removed."""
    holder_ids: StableHolderIds = field(default_factory=StableHolderIds)
    names: array[int] = field(default_factory=lambda: array("Q"))
    """See `indexer.Changes` for names, counts and rows."""
    counts: array[int] = field(default_factory=lambda: array("H"))
    rows: array[int] = field(default_factory=lambda: array("Q"))

    @classmethod
    def of(
        cls, record: WorkerRecord, holder_ids: StableHolderIds, changes: Changes | None
    ) -> JournalEntry:
        """Return the entry for one write of a worker."""
        if changes is None:
            return cls(record.worker, record=record, holder_ids=holder_ids)
        return cls(
            record.worker,
            record=record,
            holder_ids=changes.holder_ids,
            names=changes.names,
            counts=changes.counts,
            rows=changes.rows,
        )

    def pack(self) -> bytes:
        """Return what `unpack` takes."""
        return pack(
            [
                tuple(self.worker),
                self.removed,
                None if self.record is None else self.record.pack(),
                [self.holder_ids.dump(), self.holder_ids.next],
                self.names.tobytes(),
                self.counts.tobytes(),
                self.rows.tobytes(),
            ]
        )

    @classmethod
    def unpack(cls, blob: bytes) -> JournalEntry:
        """Return the entry that was packed."""
        with decoding("journal entry"):
            worker, removed, record, holder_ids, *columns = unpack(blob)
            names, counts, rows = map(array, "QHQ", columns)
            return cls(
                Worker(*worker),
                removed,
                None if record is None else WorkerRecord.unpack(record),
                StableHolderIds.load(*holder_ids),
                names,
                counts,
                rows,
            )


@dataclass
class HandoverState:
    """What the next owner of a worker needs to go on."""

    stream: dict[str, Any] | None
    """The stream as its owner dumped it; None if no other owner can resume it."""
    layout: CacheLayout
    holder_ids: StableHolderIds
    bits: dict[int, int]
    """Holder id -> bit."""
    retired_bits: dict[int, int]
    """The same for holder ids that were released, until their bits are cleared."""
    shard_stamps: dict[int, str]
    registry: str
    scheme: str

    def pack(self) -> bytes:
        """Return what `unpack` takes."""
        holder_ids = [self.holder_ids.dump(), self.holder_ids.next]
        bits = [self.bits, self.retired_bits, self.shard_stamps, self.registry]
        return pack([self.stream, self.layout.dump(), holder_ids, *bits, self.scheme])

    @classmethod
    def unpack(cls, blob: bytes) -> HandoverState:
        """Return the state that was packed."""
        with decoding("handover state"):
            stream, layout, holder_ids, *others = unpack(blob)
            layout = CacheLayout.load(layout)
            return cls(stream, layout, StableHolderIds.load(*holder_ids), *others)


@dataclass(frozen=True)
class Garbage:
    """A generation that is not needed any more, as scripts pack it in every version."""

    generation: str
    home: int
    """Home shard of the worker that had it."""
    model: str
    bits: dict[str, int]
    """Label -> bit."""
    registry: str
    reusable: bool
    """Whether the bits can be allocated again."""
    since: int
    """Seconds since 1970, by the store's clock."""

    @classmethod
    def unpack(cls, generation: str, blob: bytes, home: int) -> Garbage:
        """Return what a script packed."""
        with decoding("garbage"):
            _, model, packed, reusable, since = msgpack.unpackb(
                blob, raw=True, strict_map_key=False
            )
            registry, bits = unpack(packed) if packed else ("", {})
            return cls(generation, home, model.decode(), bits, registry, bool(reusable), since)


def unpack_report(blob: bytes) -> Mapping[str, Any]:
    """Return a worker's report, as its owner packed it."""
    with decoding("report"):
        report = unpack(blob)
        if not isinstance(report, dict):
            raise TypeError(type(report).__name__)
        return report


def pack(value: Any) -> bytes:
    """Return a value as msgpack."""
    blob: bytes = msgpack.packb(value)
    return blob


def unpack(blob: bytes) -> Any:
    """Return the value that was packed, with lists for tuples."""
    return msgpack.unpackb(blob, strict_map_key=False)
