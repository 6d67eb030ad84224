"""Frames that a hostile publisher sends. Each attack yields whole messages, for ever."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import msgpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Messages = "Iterator[list[bytes]]"
MODEL = "m"
HONEST_PODS = [f"10.0.0.{number}:8000" for number in range(1, 5)]


def message(pod: str, sequence: int, events: list[Any], rank: int = 0, model: str = MODEL) -> Any:
    """One frame; `events` as on the wire."""
    payload = msgpack.packb([1.0, events, rank])
    return [f"kv@{pod}@{model}".encode(), sequence.to_bytes(8, "big"), payload]


def stored(hashes: list[int], tokens: list[int], parent: int | None = None, **fields: Any) -> Any:
    """A BlockStored of blocks of 16 tokens."""
    return {
        "type": "BlockStored",
        "block_hashes": hashes,
        "parent_block_hash": parent,
        "token_ids": tokens,
        "block_size": 16,
        "medium": "GPU",
        **fields,
    }


def huge_frames() -> Iterator[list[bytes]]:
    """Frames of 60 MB."""
    huge = [b"kv@evil:1@m", bytes(8), bytes(60_000_000)]
    while True:
        yield huge


def largest_frames() -> Iterator[list[bytes]]:
    """Frames just below the limits, of whatever takes most memory or time."""
    bodies = [
        [stored([1], [1] * 16, extra_keys=[[{}] * 100_000])],
        [stored([1], [1] * 16, extra_keys=[None] * 900_000)],
        [stored([1] * 100_000, [])],
        [["AllBlocksCleared"]] * 16_000,
        [None] * 16_000,
        [stored([number], [number] * 16) for number in range(8_000)],
        [{"type": "BlockRemoved", "block_hashes": list(range(100_000))}],
        [stored(list(range(1, 5_001)), [7] * 80_000)],
    ]
    payloads = [msgpack.packb([1.0, events, 0]) for events in bodies]
    for sequence in itertools.count():
        payload = payloads[sequence % len(payloads)]
        yield [b"kv@evil:1@m", sequence.to_bytes(8, "big"), payload]


def orphans() -> Iterator[list[bytes]]:
    """Blocks whose parents never come, with as much beside them as fits."""
    luggage = "x" * 500_000
    for sequence in itertools.count():
        hashes, parent = [2 * sequence + 1], 2 * sequence + 1_000_000_001
        event = stored(hashes, [3] * 16, parent, session_id=luggage, extra_keys=[[luggage]])
        yield message("evil:1", sequence, [event])


def invented_names() -> Iterator[list[bytes]]:
    """Pods, models, ranks, groups and media that nobody has."""
    for number in itertools.count():
        event = stored([number], [number % 1000] * 16)
        yield message(f"evil-{number}:1", 0, [event])
        yield message(f"evil:{number}", 0, [event], model=f"model-{number}")
        yield message("evil:1", number, [event], rank=number)
        yield message("evil:2", number, [{**event, "group_idx": number}])
        yield message("evil:3", number, [{**event, "medium": f"medium-{number}"}])
        yield message("p" * 5_000, number, [event])


def one_hash_of_many_meanings() -> Iterator[list[bytes]]:
    """One engine hash, announced with ever new contents, then removed."""
    for sequence in itertools.count():
        first = 500 * sequence
        events = [stored([42], [(first + n) % 120_000] * 16) for n in range(500)]
        yield message("evil:1", sequence, [*events, {"type": "BlockRemoved", "block_hashes": [42]}])


def hashes_of_one_slot() -> Iterator[list[bytes]]:
    """Engine hashes that share their low and their high bits."""
    for sequence in itertools.count():
        first = 5_000 * sequence
        hashes = [(first + n) << 24 & (2**56 - 1) for n in range(5_000)]
        yield message("evil:1", sequence, [stored(hashes, [])])
        yield message("evil:1", sequence, [stored(hashes[:500], [5] * 8_000)], rank=1)


def impersonation() -> Iterator[list[bytes]]:
    """Frames in the names of the honest pods: clears, new beginnings, other models."""
    for sequence in itertools.count():
        for pod in HONEST_PODS:
            yield message(pod, sequence, [["AllBlocksCleared"]])
            yield message(pod, 0, [stored([1], [9] * 16)])
            yield message(pod, sequence, [stored([1], [9] * 16)], model="another")
            yield [f"kv@{pod}@{MODEL}".encode(), sequence.to_bytes(8, "big"), b"\xc1"]


ATTACKS: dict[str, Callable[[], Iterator[list[bytes]]]] = {
    attack.__name__: attack
    for attack in (
        huge_frames,
        largest_frames,
        orphans,
        invented_names,
        one_hash_of_many_meanings,
        hashes_of_one_slot,
        impersonation,
    )
}
