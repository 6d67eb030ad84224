"""The last events of a worker: newest first, in bounded memory, whatever frames contain."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from support.engines.wire import decoded

from kvevents import decode_batch
from kvevents.stream.recent import RecentEvents


def stored(first: int, blocks: int = 1) -> dict[str, Any]:
    return {
        "type": "BlockStored",
        "block_hashes": list(range(first, first + blocks)),
        "parent_block_hash": None,
        "token_ids": list(range(16 * blocks)),
        "block_size": 16,
        "medium": "GPU",
    }


def live(recent: RecentEvents, sequence: int, applied_at: float, *events: dict[str, Any]) -> None:
    """Add a live frame with these events."""
    payload = msgpack.packb([1.0, list(events), 0])
    recent.add_live(sequence, applied_at, payload, decode_batch(payload))


def hashes_of(recent: RecentEvents) -> list[list[int]]:
    return [event.hashes.tolist() for event in recent.newest_first()]


def test_events_come_newest_first_with_what_they_are() -> None:
    recent = RecentEvents()
    live(recent, 4, 1.0, stored(1), {"type": "AllBlocksCleared"})
    removal = {"type": "BlockRemoved", "block_hashes": [9], "medium": "cpu", "group_idx": 2}
    live(recent, 5, 2.0, removal)
    assert [
        (e.sequence, e.applied_at, e.type, e.tier, e.group, e.hashes.tolist())
        for e in recent.newest_first()
    ] == [
        (5, 2.0, "BlockRemoved", "cpu", 2, [9]),
        (4, 1.0, "AllBlocksCleared", "", 0, []),
        (4, 1.0, "BlockStored", "gpu", 0, [1]),
    ]


def test_of_many_frames_the_last_ones_are_kept() -> None:
    recent = RecentEvents()
    for number in range(1000):
        live(recent, number, 0.0, stored(number))
    found = hashes_of(recent)
    assert 50 < len(found) < 150
    assert found == [[number] for number in range(999, 999 - len(found), -1)]


@pytest.mark.parametrize("blocks", [1, 200])
def test_of_a_large_frame_the_last_events_are_kept_without_their_tokens(blocks: int) -> None:
    recent = RecentEvents()
    events = [stored(1000 * number, blocks) for number in range(200)]
    live(recent, 1, 0.0, *events)
    found = list(recent.newest_first())
    assert len(found) == 16
    assert [event.hashes[0] for event in found] == [1000 * n for n in range(199, 183, -1)]
    assert all(event.stored is None for event in found)
    assert sum(len(event.hashes) for event in found) <= 16 * 128


def test_a_large_frame_with_a_clear_in_it_is_kept() -> None:
    recent = RecentEvents()
    live(recent, 1, 0.0, *[stored(n) for n in range(50)], {"type": "AllBlocksCleared"})
    assert next(recent.newest_first()).type == "AllBlocksCleared"


def test_events_of_a_replay_are_kept() -> None:
    recent = RecentEvents()
    recent.add(7, 3.0, decoded(stored(1)))
    live(recent, 8, 4.0, stored(2))
    found = list(recent.newest_first())
    assert [(e.sequence, e.hashes.tolist()) for e in found] == [(8, [2]), (7, [1])]
    assert [e.stored and e.stored.token_ids.tolist() for e in found] == [list(range(16))] * 2
