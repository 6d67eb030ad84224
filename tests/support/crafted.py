"""Snapshots that somebody has changed: one value is another, and all checksums are right."""

from __future__ import annotations

import copy
import random
import sys
import time
from array import array
from typing import TYPE_CHECKING, Any

import msgpack

from indexer import CacheLayout, Group, KeyScheme, MemoryIndex, Place, Worker
from kvevents import FrameRouter, Source
from service.records import FIRST_LINE, packed_record
from service.snapshot import KeySettings, RestoredIndex, read_snapshot
from support.given_keys import GivenKeys

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 8 * 2**20
SIZE = 16
KEYS = KeySettings("", count_copies=True, block_size_of=lambda _: SIZE)
SOURCE = Source("tcp://*:5557", bind=True)
WORKERS = [Worker("a:1", 0), Worker("a:1", 1), Worker("b:1", 0), Worker("c:1", 0)]
HYBRID = CacheLayout(
    SIZE,
    {0: Group("sliding_window", 129, 16), 1: Group("full_attention", 0, 16), 2: Group("mamba")},
    0,
    None,
    {"cpu": 64},
)
_BLOCKS = array("Q", random.Random(1).randbytes(8 * 300))
_NUMBERS = [-1, 0, 1, 2, 7, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32, 2**40, 2**63, 2**64 - 1]
_OTHERS: list[Any] = [None, True, 1.5, float("nan"), "", "x", b"", bytes(9), [], [[]], {}, {"a": 1}]


class KeysOfAnySize(GivenKeys):
    """A prompt with the same keys whatever the size of their blocks: a layout may say any."""

    def block_keys(self, block_size: int) -> array[int]:
        return self._keys


def some_index() -> MemoryIndex:
    """An index with all there can be: groups, tiers, wide blocks, copies, retired holders."""
    index = MemoryIndex(LIMIT)
    for worker in WORKERS:
        index.join(worker, "m" if worker.pod != "c:1" else "another")
    index.describe(WORKERS[2], HYBRID)
    for number, worker in enumerate(WORKERS):
        held = _BLOCKS[number * 20 :]
        index.store(worker, Place("gpu", number % 2), held, held)
        index.store(worker, Place("gpu", number % 2), held[:9], held[:9])
        index.store(worker, Place("cpu"), array("Q", range(1, 11)), held[:40])
        index.store_known(worker, Place("disk", 2), held[:30])
        index.remove(worker, Place("gpu", number % 2), held[60:70])
    index.clear(WORKERS[1], ("cpu",))
    index.restart(WORKERS[0], ("gpu",))
    index.store(WORKERS[0], Place("gpu"), _BLOCKS[:50], _BLOCKS[:50])
    return index


def stream_of(worker: Worker, model: str) -> dict[str, Any]:
    """A worker's stream as a snapshot has it."""
    return {
        "worker": tuple(worker),
        "model": model,
        "endpoint": SOURCE.endpoint,
        "life": {"last": 7, "newest": 1.5, "epoch": b"e", "birth": 5, "seen": [(6, 1), (7, 2)]},
        "doubts": [None, ("partial", "orphans", True), None],
        "orphans": True,
        "tiers": ["gpu", "cpu", "disk"],
        "gpu_stores": 3,
    }


def records_of(index: MemoryIndex) -> list[dict[str, Any]]:
    """The records of a snapshot of `index`, as they are read back."""
    header = {
        "written_at": time.time(),
        "byteorder": sys.byteorder,
        "hash_seed": "",
        "count_copies": True,
        "block_sizes": dict.fromkeys(index.models(), SIZE),
        "streams": [stream_of(blocks.worker, blocks.model) for blocks in index.workers()],
    }
    packed = [msgpack.packb(record) for record in (header, *index.dump())]
    return [msgpack.unpackb(record, strict_map_key=False) for record in packed]


def write(path: Path, records: list[Any]) -> None:
    """Write a snapshot of these records, with right checksums."""
    last = {"records": len(records)}
    path.write_bytes(FIRST_LINE + b"".join(map(packed_record, (*records, last))))


def changed(records: list[Any], source: random.Random) -> list[Any]:
    """Return records in which one value, or a few, are others."""
    records = list(records)
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        # The first two have nearly all that is not a slot.
        number = source.choice((0, 1, 1, 1, source.randrange(len(records))))
        records[number] = copy.deepcopy(records[number])
        container: Any = records
        key: Any = number
        while isinstance(container[key], dict | list) and container[key]:
            container = container[key]
            keys: list[Any] = list(
                container if isinstance(container, dict) else range(len(container))
            )
            key = source.choice(keys)
            if source.random() < 0.05:
                break
        container[key] = _other_value(container[key], source)
        if isinstance(container, list) and source.random() < 0.1:
            container.insert(0, copy.deepcopy(source.choice(container)))
    return records


def _other_value(value: Any, source: random.Random) -> Any:
    if source.random() < 0.1:
        return source.choice([*_OTHERS, *_NUMBERS])
    if type(value) is int:
        return source.choice([*_NUMBERS, value + 1, value - 1, value ^ 1 << source.randrange(63)])
    if type(value) is bytes and value:
        return _other_bytes(value, source)
    return source.choice(_OTHERS)


def _other_bytes(value: bytes, source: random.Random) -> bytes:
    """Change one number of an array, or the array's length."""
    if source.random() < 0.15:
        shapes = [value[:-1], value[:-8], value[8:], value + value, bytes(len(value))]
        other: bytes = source.choice(shapes)
        return other
    size = source.choice((1, 4, 8, 8))
    at = source.randrange(len(value)) // size * size
    number: int = source.choice([*_NUMBERS[1:], source.randrange(2**64), source.randrange(300)])
    return (
        value[:at]
        + (number & (1 << 8 * size) - 1).to_bytes(size, sys.byteorder)
        + value[at + size :]
    )


def read(path: Path) -> RestoredIndex:
    """Read a snapshot as the service does."""
    return read_snapshot(path, KEYS, LIMIT, {"gpu": 1.0, "cpu": 0.8}, 0)


def use(restored: RestoredIndex) -> None:
    """Do all that a service does with an index."""
    index = restored.index

    class NoReplays:
        def start(self, stream: object, request: object) -> None: ...

        def cancel(self, stream: object) -> None: ...

    router = FrameRouter(index, lambda model: KeyScheme(model, SIZE), NoReplays())
    router.on_connected(SOURCE, 0)
    router.restore(restored.streams)
    for worker in WORKERS:
        index.join(worker, "m")
        for model in ("m", "another"):
            index.match(model, KeysOfAnySize(_BLOCKS)).best_of(worker.pod)
        for place in (Place("gpu"), Place("gpu", 1), Place("cpu"), Place("disk", 2)):
            index.store_known(worker, place, _BLOCKS)
            index.remove(worker, place, _BLOCKS[:100])
            index.limit_copies(worker, place, _BLOCKS, [0] * len(_BLOCKS))
    for blocks in index.workers():
        index.restart(blocks.worker, set(blocks.by_tier))
    while index.sweep(64):
        pass
    more = array("Q", random.Random(2).randbytes(8 * 3000))
    index.table.limit_bytes = index.table.bytes_used
    for start in range(0, len(more), 100):
        index.store(WORKERS[start % 4], Place("gpu"), more[start:][:100], more[start:][:100])
    index.evicted()
    router.tick(time.monotonic())
    assert sum(1 for _ in index.dump()) == 513
