"""Snapshots whose checksums are right and whose contents are not: refused, or harmless."""

from __future__ import annotations

import random
from array import array
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import structlog
from support.crafted import LIMIT, changed, read, records_of, some_index, use, write

from indexer import Place, Worker
from service.records import SnapshotError
from service.snapshot import RestoredIndex

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_a_snapshot_that_nobody_has_changed_is_read(tmp_path: Path) -> None:
    index = some_index()
    write(tmp_path / "s", records_of(index))
    restored = read(tmp_path / "s")
    assert restored.index.workers() == index.workers()
    assert len(restored.streams) == 4
    use(restored)


def test_a_snapshot_of_an_index_that_has_reached_its_limit_is_read(tmp_path: Path) -> None:
    index = some_index()
    source = random.Random(1)
    pods = [Worker(f"p{number}", 0) for number in range(9)]
    for pod in pods:
        index.join(pod, "m")
    while index.table.evicted_mappings < 30_000:
        blocks = array("Q", source.randbytes(8 * 200))
        for pod in source.sample(pods, 3):
            index.store(pod, Place("gpu"), blocks, blocks)
        index.remove(source.choice(pods), Place("gpu"), blocks[:50])
        index.clear(source.choice(pods), ("cpu",))
        index.sweep(8)
    write(tmp_path / "s", records_of(index))
    restored = read(tmp_path / "s").index
    assert restored.table.bytes_used <= LIMIT + LIMIT // 16
    assert restored.table.block_count > 0.7 * index.table.block_count
    use(RestoredIndex(restored, [], None))


def fuzz(path: Path, seeds: range) -> tuple[int, int]:
    """Read and use changed snapshots; returns how many were refused, and how many were not."""
    records = records_of(some_index())
    refused = 0
    for seed in seeds:
        write(path, changed(records, random.Random(seed)))
        try:
            restored = read(path)
        except SnapshotError:
            refused += 1
        else:
            with structlog.testing.capture_logs():
                use(restored)
    return refused, len(seeds) - refused


def test_changed_snapshots_are_refused_or_harmless(tmp_path: Path) -> None:
    refused, harmless = fuzz(tmp_path / "s", range(60))
    assert refused > harmless


@pytest.mark.soak
def test_very_many_changed_snapshots_are_refused_or_harmless(tmp_path: Path) -> None:
    refused, harmless = fuzz(tmp_path / "s", range(1000, 5000))
    assert refused > harmless


# One test for each kind. A change gets the header, the first record of the index and the first
# segments of both maps.


def first_used(record: dict[str, Any], width: int) -> int:
    """The first used slot of a segment, as the offset of its first byte."""
    words = memoryview(record["words"]).cast("Q")
    return next(8 * at for at in range(0, len(words), width) if words[at + 1] & 0xFFFFFFFF)


def used_segments(records: list[Any], first: int) -> list[dict[str, Any]]:
    """The segments of one map that are not empty; first: 0 for blocks, 256 for mappings."""
    return [record for record in records[2 + first : 258 + first] if record["used"]]


def with_number(value: bytes, at: int, number: int, size: int = 8) -> bytes:
    return value[:at] + number.to_bytes(size, "little") + value[at + size :]


Change: TypeAlias = "Callable[[list[Any]], None]"


def of_index(*path: Any, to: Any) -> Change:
    """Change one value of the index's first record; a function gets the value before."""

    def change(records: list[Any]) -> None:
        container = records[1]
        for key in path[:-1]:
            container = container[key]
        container[path[-1]] = to(container[path[-1]]) if callable(to) else to

    return change


def table(*path: Any, to: Any) -> Change:
    """Change one value of the table's first record."""
    return of_index("table", *path, to=to)


def set_segment(first: int, at: int, to: int | Callable[[int], int]) -> Change:
    """Change one word of the first used slot from segment `first` on."""

    def change(records: list[Any]) -> None:
        record = used_segments(records, first)[0]
        at_byte = first_used(record, 2 if first < 256 else 3) + 8 * at
        before = int.from_bytes(record["words"][at_byte : at_byte + 8], "little")
        value = to(before) if callable(to) else to
        record["words"] = with_number(record["words"], at_byte, value)

    return change


def same_block_twice(records: list[Any]) -> None:
    """Another segment has a block that the first one has."""
    one, other, *_ = used_segments(records, 0)
    at, to = first_used(one, 2), first_used(other, 2)
    other["words"] = other["words"][:to] + one["words"][at : at + 16] + other["words"][to + 16 :]


def full_segment(records: list[Any]) -> None:
    """No free slot ends a search."""
    record = used_segments(records, 256)[0]
    at, slots = first_used(record, 3), record["slots"]
    record.update(words=record["words"][at : at + 24] * slots, used=slots)


def many_meanings(records: list[Any]) -> None:
    """One engine hash has a thousand meanings."""
    record = used_segments(records, 256)[0]
    words, at = record["words"], first_used(record, 3)
    slots = [words[at : at + 16] + number.to_bytes(8, "little") for number in range(1000)]
    records[1]["table"]["mappings"] += 1000 - record["used"]
    record.update(words=b"".join(slots), used=1000, slots=1000)


def stolen_holders(records: list[Any]) -> None:
    """A worker has the holders of another one."""
    one, other, *_ = records[1]["entries"]
    one["holders"] = other["holders"]


def announcer_of_blocks(records: list[Any]) -> None:
    entry = records[1]["entries"][0]
    entry["announcer"] = entry["holders"][0][2]


def same_worker_twice(records: list[Any]) -> None:
    one, other, *_ = records[1]["entries"]
    one["worker"] = other["worker"]


def header(**fields: Any) -> Change:
    return lambda records: records[0].update(fields)


def stream_twice(records: list[Any]) -> None:
    records[0]["streams"].append(records[0]["streams"][0])


def segment(**fields: Any) -> Change:
    return lambda records: records[2].update(fields)


def stream(**fields: Any) -> Change:
    return lambda records: records[0]["streams"][0].update(fields)


def life(**fields: Any) -> Change:
    return lambda records: records[0]["streams"][0]["life"].update(fields)


def entry(**fields: Any) -> Change:
    return lambda records: records[1]["entries"][0].update(fields)


def doubled(value: Any) -> Any:
    return value + value


def replaced(byte: int) -> Callable[[bytes], bytes]:
    return lambda value: bytes([byte]) * len(value)


def ending_large(value: bytes) -> bytes:
    return value[:-4] + bytes([255] * 4)


CRAFTED: dict[str, Change] = {
    "more holders than columns": table("holders", "count", to=2**30),
    "a negative number of holders": table("holders", "count", to=-1),
    "columns of unequal lengths": table("holders", "scopes", to=doubled),
    "empty columns": table("holders", "held", to=b""),
    "columns of half numbers": table("holders", "held", to=lambda held: held[:-3]),
    "columns of another type": table("holders", "held", to=[1, 2, 3]),
    "neither holder nor announcer": table("holders", "announcer", to=replaced(2)),
    "wrong counts of held blocks": table("holders", "held", to=replaced(0)),
    "a free holder twice": table("holders", "free", to=[1, 1]),
    "a free holder that is in use": table("holders", "free", to=[0]),
    "a free holder beyond all": table("holders", "free", to=[2**31]),
    "a retired holder beyond all": table("sets", "retired", to=[2**32]),
    "a retired holder that is in use": table("sets", "retired", to=[0]),
    "sets larger than their holders": table("sets", "sizes", to=ending_large),
    "sets without sizes": table("sets", "sizes", to=b""),
    "a set with a holder beyond all": table("sets", "holders", to=ending_large),
    "sets in another order": table("sets", "holders", to=lambda h: h[4:] + h[:4]),
    "wrong references": table("sets", "references", to=replaced(0)),
    "too few references": table("sets", "references", to=b""),
    "copies without end": table("copies", 0, 2, to=lambda c: with_number(c, 0, 2**63)),
    "no copies of a block": table("copies", 0, 2, to=lambda c: with_number(c, 0, 0)),
    "copies without names": table("copies", 0, 1, to=b""),
    "copies of a holder beyond all": table("copies", 0, 0, to=2**32),
    "copies of no holder": table("copies", 0, 0, to="x"),
    "an epoch beyond eight bits": table("epoch", to=256),
    "a wrong number of blocks": table("blocks", to=lambda n: n + 1),
    "a huge number of blocks": table("blocks", to=2**39),
    "a wrong number of mappings": table("mappings", to=0),
    "tiers of a wrong type": of_index("tiers", to=[1, 2]),
    "a tier twice": of_index("tiers", to=["gpu", "gpu"]),
    "very many tiers": of_index("tiers", to=[f"t{number}" for number in range(300)]),
    "another counting of copies": of_index("count_copies", to=1),
    "a huge number of workers": of_index("numbers", to=2**40),
    "too few workers": of_index("numbers", to=1),
    "a free worker that is in use": of_index("free", to=[0]),
    "a worker without a number": entry(number=None),
    "a worker with a number beyond all": entry(number=2**31),
    "another worker's holder": lambda records: records[1]["entries"][0].update(
        holders=records[1]["entries"][1]["holders"]
    ),
    "an announcer that holds blocks": announcer_of_blocks,
    "a holder beyond all": entry(holders=[["gpu", 0, 2**31]]),
    "a holder of no number": entry(holders=[["gpu", 0, "x"]]),
    "a worker of another model": entry(model="other"),
    "a worker without a name": entry(worker=[1, 0]),
    "a negative rank": entry(worker=["a:1", -1]),
    "a layout of a wrong shape": entry(layout=[16, [], 0]),
    "a layout of wrong types": entry(layout=["16", [], 0, None, []]),
    "a layout with a negative block size": entry(layout=[-16, [], 0, None, []]),
    "the same worker twice": same_worker_twice,
    "a slot with a set beyond all": set_segment(0, 1, 2**32 - 1),
    "a mapping with a set beyond all": set_segment(256, 1, 2**31),
    "a slot of another set": set_segment(0, 1, lambda word: word ^ 1),
    "the same block twice": same_block_twice,
    "a segment without a free slot": full_segment,
    "a hash with a thousand meanings": many_meanings,
    "a segment of more slots than it has": segment(slots=2**40),
    "a segment of no slots": segment(slots=0, words=b"", used=0),
    "a segment of half words": segment(words=b"1234567"),
    "a segment with more used slots": segment(used=7),
    "a segment larger than the limit": segment(words=bytes(16 * 2**20), slots=2**20),
    "a record larger than the limit": segment(more=bytes(LIMIT + 2**26)),
    "a record of very many lists": segment(more=[[]] * 4_000_000),
    "a segment less": lambda records: records.pop(),
    "a segment more": lambda records: records.append(records[-1]),
    "a record that is no map": lambda records: records.__setitem__(5, 7),
    "streams that are no list": header(streams=3),
    "a stream that is no map": header(streams=["x"]),
    "a stream twice": stream_twice,
    "a stream without a life": stream(life=None),
    "a stream of no worker": stream(worker=7),
    "a stream with a rank of no number": stream(worker=["a:1", "0"]),
    "a stream with unknown doubts": stream(doubts=[None, ("bored", "", True), None]),
    "a stream with few doubts": stream(doubts=[]),
    "a stream with an empty doubt": stream(doubts=[None, (), None]),
    "a stream with tiers of no name": stream(tiers=[1]),
    "a stream with a last frame of no number": life(last="7"),
    "a stream with an epoch of no bytes": life(epoch=7),
    "a stream that remembers no pairs": life(seen=[1, 2]),
    "a time of writing that is none": header(written_at=float("nan")),
    "a time of writing of no number": header(written_at="now"),
    "block sizes that are no map": header(block_sizes=[1]),
}


@pytest.mark.parametrize("kind", CRAFTED)
def test_a_crafted_snapshot_is_refused(tmp_path: Path, kind: str) -> None:
    records = records_of(some_index())
    CRAFTED[kind](records)
    write(tmp_path / "s", records)
    with pytest.raises(SnapshotError):
        read(tmp_path / "s")
