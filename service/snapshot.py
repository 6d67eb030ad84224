"""Writes the index to a file at intervals and at shutdown, and reads it back at start.

The first record of the file is a header (how block keys were made, and the state of each worker's
stream), then come the records that the index dumps. Checksums tell a damaged file from a whole one,
not an honest one from a crafted one: so nothing that is read is trusted before it has been checked.

A new file is written beside the old one, synced, and renamed over it, so that there is always one
complete file, whenever the process dies.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import time
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import structlog

from indexer import MemoryIndex
from kvevents import check_dump
from service.records import FIRST_LINE, SnapshotError, packed_record, read_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from kvevents import Listener

_BATCH_BYTES = 1024 * 1024
_HEADER_ROOM = 64 * 1024 * 1024  # bytes of a record beyond what the index may take

_log = structlog.get_logger("kvatlas.service")


class KeySettings(NamedTuple):
    """The settings that a snapshot and the configuration must have in common."""

    hash_seed: str
    count_copies: bool  # see `MemoryIndex`
    block_size_of: Callable[[str], int]  # model -> number of tokens of a block


@dataclass(frozen=True)
class RestoredIndex:
    """The contents of a snapshot."""

    index: MemoryIndex
    streams: list[dict[str, Any]]  # as `FrameRouter.dump` returned them
    written_at: float | None  # seconds since 1970; None if there was no snapshot


# Reading


def read_snapshot(
    path: Path,
    keys: KeySettings,
    limit_bytes: int,
    tier_weights: Mapping[str, float],
    oldest: float,
) -> RestoredIndex:
    """Read a whole snapshot.

    Args:
        path: the file.
        keys: what it must have been made with.
        limit_bytes: memory that the index may use.
        tier_weights: by tier, as the index takes them.
        oldest: the age, in seconds, beyond which the file is refused; 0 for any age.

    Raises:
        SnapshotError: the file cannot be used.
        FileNotFoundError: there is none.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        records = read_records(file, limit_bytes + _HEADER_ROOM)
        try:
            header = next(records)
            _check_header(header, keys, oldest)
            index = MemoryIndex.load(records, limit_bytes, tier_weights)
            if next(records, None) is not None:
                raise SnapshotError("has records after the end of the index")
            return RestoredIndex(index, header["streams"], header["written_at"])
        except (SnapshotError, OSError):
            raise
        except Exception as error:  # whatever a file contains, it must not fail the start
            raise SnapshotError(f"has contents that cannot be right: {error!r:.500}") from error


def _check_header(header: dict[str, Any], keys: KeySettings, oldest: float) -> None:
    age = time.time() - header["written_at"]
    if not math.isfinite(age):
        raise ValueError(f"it was written {age} s ago")
    if oldest and age > oldest:
        raise SnapshotError(f"is {age:,.0f} s old; snapshot.oldest_seconds is {oldest:,.0f}")
    if header["byteorder"] != sys.byteorder:
        raise SnapshotError(f"was written on a {header['byteorder']}-endian machine")
    for name, configured in (("hash_seed", keys.hash_seed), ("count_copies", keys.count_copies)):
        if header[name] != configured:
            raise SnapshotError(f"was made with {name} {header[name]!r}, not {configured!r}")
    for model, block_size in header["block_sizes"].items():
        if keys.block_size_of(model) != block_size:
            raise SnapshotError(
                f"was made with blocks of {block_size} tokens for {model}, "
                f"not {keys.block_size_of(model)}"
            )
    for stream in header["streams"]:
        check_dump(stream)
    workers = {tuple(stream["worker"]) for stream in header["streams"]}
    if len(workers) != len(header["streams"]):
        raise ValueError("a worker has two streams")


# Writing


class Snapshots:
    """Writes snapshots to `path` every `interval` seconds, within an `async with` block.

    Attributes:
        written: number of snapshots written.
        failed: number of snapshots that could not be written.
        size: bytes of the newest one.
        seconds: time it took to write the newest one.
        written_at: when it was written (`time.time`), perhaps by an earlier process; None if there
            is none.
    """

    def __init__(
        self,
        path: Path,
        interval: float,
        index: MemoryIndex,
        listener: Listener,
        keys: KeySettings,
        written_at: float | None = None,
    ) -> None:
        self.path = path
        self._interval = interval
        self._index = index
        self._listener = listener
        self._keys = keys
        self._stopping = asyncio.Event()
        self.written = self.failed = self.size = 0
        self.seconds = 0.0
        self.written_at = written_at

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="snapshots")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop writing; a snapshot in progress is completed first."""
        self._stopping.set()
        await self._task

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(self._interval):
                    await self._stopping.wait()
            except TimeoutError:
                await self.write()

    async def write(self) -> None:
        """Write a snapshot now. A failure is logged and counted, and leaves the old file in place.

        Events wait until the index is copied to the page cache; requests do not wait. Only one call
        may run at a time.
        """
        started = time.monotonic()
        try:
            self.size = await self._write()
        except Exception:  # noqa: BLE001 - the service goes on without a snapshot
            self.failed += 1
            _log.exception("snapshot_failed", path=str(self.path))
            return
        self.written += 1
        self.written_at = time.time()
        self.seconds = time.monotonic() - started
        _log.info("snapshot_written", path=str(self.path), bytes=self.size, seconds=self.seconds)

    async def _write(self) -> int:
        new = self.path.with_name(self.path.name + ".new")
        with new.open("wb", buffering=0) as file:
            with self._listener.paused():
                for batch in self._batches():
                    await asyncio.to_thread(_write_all, file, batch)
            await asyncio.to_thread(os.fsync, file.fileno())
            size = file.tell()
        await asyncio.to_thread(_move, new, self.path)
        return size

    def _batches(self) -> Iterator[bytes]:
        """Yield the file, piece by piece.

        Events are paused, but requests run between two pieces. Whatever a request can change is in
        the first piece, which is built without giving way to them.
        """
        dumped = self._index.dump()
        batch = bytearray(FIRST_LINE)
        count = 0
        for record in chain([self._header()], dumped):
            batch += packed_record(record)
            count += 1
            if count > 1 and len(batch) >= _BATCH_BYTES:
                yield bytes(batch)
                batch.clear()
        yield bytes(batch + packed_record({"records": count}))

    def _header(self) -> dict[str, Any]:
        return {
            "written_at": time.time(),
            "byteorder": sys.byteorder,
            "hash_seed": self._keys.hash_seed,
            "count_copies": self._keys.count_copies,
            "block_sizes": {m: self._keys.block_size_of(m) for m in self._index.models()},
            "streams": self._listener.router.dump(),
        }


def _write_all(file: Any, batch: bytes) -> None:
    rest = memoryview(batch)
    while rest:  # an unbuffered file may take less than all of it
        rest = rest[file.write(rest) :]


def _move(new: Path, path: Path) -> None:
    new.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
