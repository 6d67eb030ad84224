"""Entries of the journal, and the rows in them."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np

from indexer import StableHolderIds, Worker
from store.errors import decoding
from store.records import checks as check
from store.records.checks import pack
from store.records.worker import WorkerRecord

if TYPE_CHECKING:
    from indexer import Changes

_HEAD_BYTES = 512 * 1024  # of a journal entry, without its columns
_MAX_SPARE_COPIES = 1_000_000  # in one entry, besides those that each row may have
_COPIES_OF_A_ROW = 64


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
            *head, names, counts, rows = _unpack_entry(blob)
            worker, removed, packed_record, holder_ids = head
            record = None if packed_record is None else WorkerRecord.unpack(packed_record)
            if record is not None and record.worker != check.worker(worker):
                raise ValueError("the record of another worker")
            return cls(
                check.worker(worker),
                bool(removed),
                record,
                check.holder_ids(holder_ids),
                *checked_columns(array("Q", names), array("H", counts), array("Q", rows)),
            )


def checked_columns(
    names: array[int], counts: array[int], rows: array[int]
) -> tuple[array[int], array[int], array[int]]:
    """Return the columns of rows. Raises ValueError if they do not fit together."""
    if len(names) != len(counts) or 2 * sum(counts) != len(rows):
        raise ValueError("names, counts and rows do not fit together")
    words = np.frombuffer(rows, dtype=np.uint64)[1::2]
    copies = int(((words >> np.uint64(16)) & np.uint64(0xFFFF)).sum())
    if copies > _COPIES_OF_A_ROW * len(words) + _MAX_SPARE_COPIES:
        raise ValueError(f"{copies} copies of {len(words)} rows")  # each is counted one by one
    return names, counts, rows


def check_holder_ids(rows: array[int], holder_ids: StableHolderIds) -> None:
    """Raise ValueError if a row has a holder id that was never given."""
    words = np.frombuffer(rows, dtype=np.uint64)[1::2]
    if len(words) and int(words.max() >> np.uint64(32)) >= holder_ids.next:
        raise ValueError("a row of a holder that there never was")


def _unpack_entry(blob: bytes) -> list[Any]:
    """Return the seven values of a journal entry, whose columns are as long as they have to be."""
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=len(blob) + 1)
    unpacker.feed(blob)
    if unpacker.read_array_header() != 7:
        raise ValueError("not an array of seven values")
    start = unpacker.tell()
    for _ in range(4):
        unpacker.skip()
    if unpacker.tell() - start > _HEAD_BYTES:
        raise ValueError(f"more than {_HEAD_BYTES} bytes before the columns")
    head = blob[start : unpacker.tell()]
    columns = [unpacker.unpack() for _ in range(3) if blob[unpacker.tell()] in _BINARY]
    rest = msgpack.Unpacker(strict_map_key=False)
    rest.feed(head)
    return [*(rest.unpack() for _ in range(4)), *columns]


_BINARY = (0xC4, 0xC5, 0xC6)  # the first bytes of binaries in msgpack
