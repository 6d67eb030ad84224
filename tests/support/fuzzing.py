"""Feeds the kernel what nobody means well with: `python -m support.fuzzing frames=1000 calls=1000`.

It prints how many inputs of each kind it has run. What it looks for are crashes, exceptions other
than those that are documented, and what a sanitizer reports if the kernel is built with one.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from array import array
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from indexer import KeyScheme, MemoryIndex
from indexer.kernel import RowTable
from kvevents import FrameRouter, PayloadError, Source, decode_batch
from service.records import SnapshotError
from support.crafted import changed, read, records_of, some_index, use, write
from support.paths import DATA

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = Source("tcp://*:5557", bind=True)


class NoReplays:
    """There is no replay socket."""

    def start(self, stream: object, request: object) -> None: ...

    def cancel(self, stream: object) -> None: ...


def payloads() -> list[bytes]:
    """The payloads of the recorded messages of real engines."""

    return [
        bytes.fromhex(json.loads(line)["frames"][-1])
        for name in ("vllm-0.33.0", "sglang-0.5.23")
        for line in (DATA / f"{name}.jsonl").read_text().splitlines()
    ]


def mutated(payload: bytes, others: list[bytes], source: random.Random) -> bytes:
    """Change, cut, double or join bytes."""
    data = bytearray(payload)
    for _ in range(source.choice((1, 1, 2, 5))):
        at = source.randrange(len(data) + 1)
        match source.randrange(6):
            case 0:
                data[at : at + 1] = bytes([source.randrange(256)])
            case 1:
                del data[at : at + source.randrange(9)]
            case 2:
                data[at:at] = source.randbytes(source.randrange(9))
            case 3:
                data[at:at] = source.choice(
                    (b"\xdd\xff\xff\xff\xff", b"\xc6\x7f\xff\xff\xff", b"\xdf")
                )
            case 4:
                data[at:] = source.choice(others)[source.randrange(99) :]
            case 5:
                data[at:at] = data[at : at + source.randrange(200)]
    return bytes(data)


def fuzz_frames(count: int) -> None:
    """Decode changed payloads, and apply them to an index that has to evict."""
    source, known = random.Random(1), payloads()
    index = MemoryIndex(2**20)
    router = FrameRouter(index, lambda model: KeyScheme(model, 16), NoReplays())
    router.on_connected(SOURCE, 0)
    for number in range(count):
        payload = mutated(source.choice(known), known, source)
        with suppress(PayloadError):
            decode_batch(payload)
        topic = b"kv@p%d@m" % source.randrange(4)
        router.route(SOURCE, [topic, number.to_bytes(8, "big"), payload])
        if number % 64 == 0:
            index.sweep(16)
    assert "internal_error" not in router.skipped, router.skipped


def fuzz_calls(count: int) -> None:
    """Call the block table at random, with few names, so that they meet."""
    source = random.Random(2)
    table = RowTable(300_000)
    announcers = [table.new_holder(7, announcer=True) for _ in range(3)]
    holders = [table.new_holder(7) for _ in range(9)]

    def some(most: int = 40) -> array[int]:
        high = source.choice((30, 3000, 2**64))
        return array("Q", [source.randrange(high) for _ in range(source.randrange(most))])

    def renew() -> None:
        which = source.choice((announcers, holders))
        number = source.randrange(len(which))
        table.retire(which[number])
        which[number] = table.new_holder(7, announcer=which is announcers)

    def store() -> None:
        hashes, span = some(), source.choice((1, 1, 1, 2, 5))
        keys = array("Q", [source.randrange(50) for _ in range(span * len(hashes))])
        table.store(hashes, keys, source.choice(holders), source.choice(announcers))

    def assign() -> None:
        names = array("Q", sorted(set(some())))
        counts = array("H", [source.randrange(3) for _ in names])
        rows = array("Q", [source.randrange(50) for _ in range(2 * sum(counts))])
        for at in range(1, len(rows), 2):
            rows[at] = (
                source.randrange(5) << 32 | source.randrange(1, 4) << 16 | source.randrange(4)
            )
        table.assign(names, counts, rows, array("I", holders[:4]), array("I", range(4)))

    acts: list[Callable[[], Any]] = [
        store,
        store,
        assign,
        renew,
        lambda: table.store_known(some(), source.choice(holders), source.choice(announcers)),
        lambda: table.remove(some(), source.choice(holders)),
        lambda: table.limit_copies(some(), some(), source.choice(holders)),
        lambda: table.sweep(source.randrange(1, 300)),
        lambda: table.lookup.sets_of(some(), 7, source.randrange(1, 5)),
        lambda: table.lookup.holder_masks(some(), array("I", holders)),
        lambda: table.rows_of(some(), array("I", holders), array("I", range(len(holders)))),
        lambda: table.names_of(some(), array("I", holders)),
        lambda: table.names_in(source.randrange(256), array("I", holders)),
    ]
    for _ in range(count):
        source.choice(acts)()
        table.evicted_holders.clear()


def fuzz_snapshots(count: int) -> None:
    """Read changed snapshots, and use what is not refused."""
    records = records_of(some_index())
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "snapshot"
        for seed in range(count):
            write(path, changed(records, random.Random(seed)))
            try:
                restored = read(path)
            except SnapshotError:
                continue
            use(restored)


FUZZERS = {"frames": fuzz_frames, "calls": fuzz_calls, "snapshots": fuzz_snapshots}


def main() -> None:
    """Run each fuzzer that is named, with as many inputs as it says."""
    structlog.configure(processors=[], logger_factory=structlog.ReturnLoggerFactory())
    for argument in sys.argv[1:]:
        name, _, count = argument.partition("=")
        FUZZERS[name](int(count))
        print(f"{name}: {count} inputs", flush=True)


if __name__ == "__main__":
    main()
