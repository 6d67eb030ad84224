"""The records of a snapshot file.

The file begins with a line that names its format and version. Records follow: the length (8 bytes,
big-endian), the CRC-32 (4 bytes) and a msgpack map. The last one contains the number of records.
"""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO

import msgpack

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"kvatlas snapshot, version "
VERSION = 2
FIRST_LINE = MAGIC + b"%d\n" % VERSION
_MOST_CONTAINERS = 4_000_000  # lists and maps in a record; 10,000 workers have 300,000


class SnapshotError(Exception):
    """A file that cannot be used: torn, foreign, impossible, of another configuration."""


def read_records(file: BinaryIO, longest: int) -> Iterator[dict[str, Any]]:
    """Yield every record but the last, and check that one.

    longest: bytes that a record may have. Raises SnapshotError.
    """
    first = file.readline(len(FIRST_LINE) + 16)
    if not first.startswith(MAGIC):
        raise SnapshotError("is not a snapshot of kvatlas")
    if first != FIRST_LINE:
        version = first.removeprefix(MAGIC).strip().decode(errors="replace")
        raise SnapshotError(f"has version {version}; only version {VERSION} can be read")
    size, count = os.fstat(file.fileno()).st_size, 0
    while True:
        length, checksum = _number(file, 8), _number(file, 4)
        if length > size - file.tell():
            raise SnapshotError("is torn: it ends in the middle of a record")
        if length > longest:
            raise SnapshotError(f"has a record of {length:,} bytes; {longest:,} are allowed")
        packed = file.read(length)
        if zlib.crc32(packed) != checksum:
            raise SnapshotError("is damaged: the checksum of a record is wrong")
        record = _unpacked(packed)
        if "records" in record:
            if record["records"] != count:
                raise SnapshotError(f"has {count} records instead of {record['records']}")
            return
        count += 1
        yield record


def _unpacked(packed: bytes) -> dict[str, Any]:
    """Unpack a record. An empty list is one byte there and 64 in memory: so they are counted."""
    room = iter(range(_MOST_CONTAINERS))

    def counted(container: Any) -> Any:
        if next(room, None) is None:
            raise SnapshotError("has a record with too many lists and maps")
        return container

    record = msgpack.unpackb(packed, strict_map_key=False, object_hook=counted, list_hook=counted)
    if type(record) is not dict:
        raise SnapshotError("has a record that is not a map")
    return record


def _number(file: BinaryIO, size: int) -> int:
    read = file.read(size)
    if len(read) < size:
        raise SnapshotError("is torn: it ends before its last record")
    return int.from_bytes(read, "big")


def packed_record(record: dict[str, Any]) -> bytes:
    """Return a record as it is written."""
    packed: bytes = msgpack.packb(record)
    return len(packed).to_bytes(8, "big") + zlib.crc32(packed).to_bytes(4, "big") + packed
