"""What one shard knows besides blocks, decoded from the answer of `read_shard_status.lua`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha1
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from store.errors import StoreError, decoding
from store.layout import worker_name
from store.records.garbage import Garbage
from store.records.worker import WorkerRecord, unpack_report
from store.scripts import ReplaceValues

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from store.scripts import Call

    Value = TypeVar("Value")

_STAMP = re.compile(rb"[0-9]{1,15}:[0-9]{1,15}")
_GENERATION = re.compile(rb"[A-Za-z0-9_-]{1,64}")


class ShardStatus(NamedTuple):
    """What one shard knows besides blocks, without values that cannot be decoded."""

    records: dict[str, WorkerRecord]
    """By the names of the workers at home there."""
    reports: dict[str, Mapping[str, Any]]
    newest: bytes
    """Id of the newest journal entry."""
    garbage: list[Garbage]
    applied: dict[str, str]
    """Worker -> stamp of its last write there."""
    registry: str
    """Of bits; empty at every shard but the first."""


@dataclass
class StatusDecoder:
    """Decodes the status of one shard, and remembers what is malformed there."""

    shard: int
    errors: list[tuple[str, StoreError]] = field(default_factory=list)
    """What each malformed value should have been, and what is wrong with it."""
    _replacements: dict[str, list[tuple[bytes, str, bytes]]] = field(default_factory=dict)

    def decode(self, answer: Any) -> ShardStatus:
        """Return the status that a script has answered."""
        records, reports, newest, garbage, applied, registry = answer
        unpack_garbage = partial(Garbage.unpack, home=self.shard)
        return ShardStatus(
            self._values("record", "workers", records, unpack_record),
            self._values("report", "reports", reports, lambda _, blob: unpack_report(blob)),
            newest,
            list(self._values("garbage", "garbage", garbage, unpack_garbage).values()),
            self._values("stamp", "applied", applied, _stamp),
            registry.decode(),
        )

    def _values(
        self, what: str, key: str, flat: Sequence[bytes], decode: Callable[[str, bytes], Value]
    ) -> dict[str, Value]:
        """Return the values of a hash by field, without those that are malformed."""
        values = {}
        for name, blob in pairs(flat):
            try:
                with decoding(what):
                    values[name.decode()] = decode(name.decode(), blob)
            except StoreError as error:
                self.errors.append((what, error))
                # The pages of a generation can still be deleted. Owners write all else again.
                is_generation = what == "garbage" and _GENERATION.fullmatch(name)
                new = Garbage.pack_unknown() if is_generation else b""
                digest = sha1(blob, usedforsecurity=False).hexdigest()
                self._replacements.setdefault(key, []).append((name, digest, new))
        return values

    def mending_calls(self) -> list[Call]:
        """Return the calls that replace what is malformed."""
        return [
            ReplaceValues(key, values).at(self.shard) for key, values in self._replacements.items()
        ]


def unpack_record(name: str, blob: bytes) -> WorkerRecord:
    """Return the record of the worker of that name."""
    record = WorkerRecord.unpack(blob)
    if worker_name(record.worker) != name:
        raise ValueError("the record of another worker")
    return record


def _stamp(_: str, blob: bytes) -> str:
    if not _STAMP.fullmatch(blob):
        raise ValueError("not a stamp")
    return blob.decode()


def pairs(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Return the fields and values of a hash, which a script returns in turn."""
    return zip(flat[::2], flat[1::2], strict=True)
