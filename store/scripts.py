"""The scripts of `lua/`: a dataclass for each, which names the arguments in their order."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib import resources
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import msgpack

if TYPE_CHECKING:
    from collections.abc import Sequence


class Call(NamedTuple):
    """One run of a script at one shard."""

    shard: int
    script: Script


class Script:
    """The arguments of one script, apart from the shard's prefix, which comes first."""

    file: ClassVar[str]
    """Name of the script's file, without its suffix."""

    def arguments(self) -> list[str | bytes | int]:
        """Return the arguments as the server takes them; sequences are packed."""
        values = [getattr(self, field.name) for field in fields(self)]  # type: ignore[arg-type]
        return [value if isinstance(value, (str, bytes, int)) else _pack(value) for value in values]

    def at(self, shard: int) -> Call:
        """Return the call that runs the script at a shard."""
        return Call(shard, self)


# Replicas


@dataclass(frozen=True)
class HeartbeatReplica(Script):
    """Renews a replica's lease; returns whether it had one, and the live replicas."""

    file = "heartbeat_replica"
    replica: str
    """Identity; empty only asks."""
    lease: int
    """Milliseconds."""
    replaced_prefix: str
    """Leases of other replicas that begin with it end at once; empty for none."""


# Workers


@dataclass(frozen=True)
class AcquireWorker(Script):
    """Makes a replica the owner of a worker, unless a live replica owns it."""

    file = "acquire_worker"
    worker: str
    model: str
    replica: str
    unused_generation: str
    """Name of the new generation, should one be begun."""
    begin_generation: str
    """always, unreleased (if the last owner did not release the worker) or needed."""
    live_replicas: Sequence[str]
    shards: int


@dataclass(frozen=True)
class ReleaseWorker(Script):
    """Ends the ownership of a worker, if the replica owns it."""

    file = "release_worker"
    worker: str
    replica: str
    successor: str
    reserved: int


@dataclass(frozen=True)
class RemoveWorker(Script):
    """Removes a worker and everything known of it."""

    file = "remove_worker"
    worker: str
    epoch: int | str
    """Empty for any epoch."""
    entry: bytes
    entries_kept: int
    fence_seconds: int
    reusable: int
    """1 if nothing of the worker can be in flight to another shard."""
    spared: Sequence[str]
    """Replicas whose workers stay."""


@dataclass(frozen=True)
class FlushWorker(Script):
    """Writes what has changed of a worker to its home."""

    file = "flush_worker"
    worker: str
    epoch: int
    generation: str
    revision: int
    """The one written last."""
    pages: bytes
    names: bytes
    counts: bytes
    rows: bytes
    blocks: bytes
    masks: bytes
    bits: bytes
    stale_blocks: bytes
    """Blocks that only lose `retired_bits`."""
    retired_bits: bytes
    registry: str
    state: bytes
    bits_to_clear: bytes
    worker_record: bytes
    entry: bytes
    entries_kept: int


@dataclass(frozen=True)
class WriteBits(Script):
    """Writes the bits of a worker whose home is another shard."""

    file = "write_bits"
    worker: str
    epoch: int
    revision: int
    """The one being written."""
    expected_stamps: str
    """What may have been applied there last, separated by commas; empty for anything."""
    blocks: bytes
    masks: bytes
    bits: bytes
    stale_blocks: bytes
    """Blocks that only lose `retired_bits`."""
    retired_bits: bytes
    registry: str


@dataclass(frozen=True)
class RenewReports(Script):
    """Renews the reports of workers, and takes the requests posted to their owner."""

    file = "renew_reports"
    reports: Sequence[tuple[str, str, bytes]]
    """Worker, epoch and report of each."""


# Reading


@dataclass(frozen=True)
class ReadShardStatus(Script):
    """Returns what a shard knows besides blocks."""

    file = "read_shard_status"


@dataclass(frozen=True)
class ReadJournal(Script):
    """Returns journal entries after an id, without those that are too long."""

    file = "read_journal"
    after: bytes
    count: int
    longest: int
    """Bytes of an entry, and of all entries together."""


@dataclass(frozen=True)
class HasEntry(Script):
    """Returns whether the journal has an entry with that id, or may have had it."""

    file = "has_entry"
    position: bytes


@dataclass(frozen=True)
class ReadPages(Script):
    """Returns names and rows of some pages of a generation."""

    file = "read_pages"
    generation: str
    first: int
    last: int


@dataclass(frozen=True)
class ReadRows(Script):
    """Returns the rows of some names of a generation."""

    file = "read_rows"
    generation: str
    pages: bytes
    names: bytes


@dataclass(frozen=True)
class LookupBlocks(Script):
    """Returns the bits of blocks, and what they stand for."""

    file = "lookup_blocks"
    model: str
    blocks: bytes
    registry: str


# Bits and garbage


@dataclass(frozen=True)
class AllocateBits(Script):
    """Allocates a bit to each label that has none."""

    file = "allocate_bits"
    model: str
    unused_registry: str
    """Name of the registry, should there be none."""
    labels: Sequence[str]


@dataclass(frozen=True)
class FreeBits(Script):
    """Frees the bits of labels."""

    file = "free_bits"
    model: str
    label_prefix: str
    """All labels that begin with it besides; empty for none."""
    labels: Sequence[str]


@dataclass(frozen=True)
class ClearBits(Script):
    """Clears retired bits of blocks."""

    file = "clear_bits"
    blocks: bytes
    retired_bits: bytes
    registry: str


@dataclass(frozen=True)
class LoseRegistry(Script):
    """Ends the registry, because bits of it are lost."""

    file = "lose_registry"
    registry: str
    """Does nothing if it is another one by now."""


@dataclass(frozen=True)
class ReplaceValues(Script):
    """Replaces values of a hash that cannot be decoded."""

    file = "replace_values"
    name: str
    """Of the hash."""
    values: Sequence[tuple[bytes, str, bytes]]
    """Field, SHA-1 of the value that is malformed, and the new value; empty deletes the field."""


@dataclass(frozen=True)
class DeletePages(Script):
    """Deletes some pages of a generation."""

    file = "delete_pages"
    generation: str
    first: int
    last: int
    is_last: int
    """1 if the generation is garbage no longer."""


SCRIPTS = tuple(Script.__subclasses__())
"""All scripts."""


def _pack(values: Sequence[object]) -> bytes:
    """Return a sequence as scripts unpack it; the servers' decoder knows no binary type."""
    packed: bytes = msgpack.packb(values, use_bin_type=False)
    return packed


def read_sources() -> dict[str, str]:
    """Return the Lua text of every script by its file's name, each behind the prelude."""
    folder = resources.files("store") / "lua"
    prelude = (folder / "prelude.lua").read_text()
    return {
        script.file: prelude + (folder / f"{script.file}.lua").read_text() for script in SCRIPTS
    }
