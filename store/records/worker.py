"""What a worker's own hash has: its record, its report, and what its next owner needs."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from indexer import CacheLayout, Place, StableHolderIds, TrustStatus, Worker
from store.errors import decoding
from store.records import checks as check
from store.records.checks import pack

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_STATE_BYTES = 1024**2
_RECORD_BYTES = 256 * 1024
_REPORT_BYTES = 256 * 1024
_MAX_HOLDERS = 4096
_TEXTS = ("model", "endpoint", "owner", "generation", "registry", "scheme")


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
            values = check.unpack(blob, _RECORD_BYTES)
            return cls(
                worker=check.worker(values["worker"]),
                **{name: check.text(values[name]) for name in _TEXTS},
                epoch=check.whole(values["epoch"]),
                revision=check.whole(values["revision"]),
                status=check.trust_status(values["status"]),
                layout=check.layout(values["layout"]),
                places=check.mapping(values["places"], _MAX_HOLDERS, check.bit, check.place),
                shard_stamps=check.shard_stamps(values["shard_stamps"]),
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
            values = check.unpack(blob, MAX_STATE_BYTES)
            stream, layout, holder_ids, bits, retired, stamps, registry, scheme = values
            if stream is not None and not isinstance(stream, dict):
                raise TypeError(type(stream).__name__)
            return cls(
                stream,
                check.layout(layout),
                check.holder_ids(holder_ids),
                check.mapping(bits, _MAX_HOLDERS, check.holder_id, check.bit),
                check.mapping(retired, check.MAX_BIT, check.holder_id, check.bit),
                check.shard_stamps(stamps),
                check.text(registry, 64),
                check.text(scheme),
            )


def unpack_report(blob: bytes) -> Mapping[str, Any]:
    """Return a worker's report, as its owner packed it."""
    with decoding("report"):
        report = check.unpack(blob, _REPORT_BYTES)
        if not isinstance(report, dict):
            raise TypeError(type(report).__name__)
        if "blocks" in report:
            blocks = check.mapping(report["blocks"], _MAX_HOLDERS, check.text, check.whole)
            report["blocks"] = blocks
        return report
