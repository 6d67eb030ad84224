"""Blocks that wait for others, without an index."""

from __future__ import annotations

from array import array

import pytest

from indexer import EngineHash, Place
from kvevents import BlockStored
from kvevents.applying.orphans import Orphans
from kvevents.budget import Budget

GPU = Place("gpu", 0)
CPU = Place("cpu", 0)


def stored(parent: int, *hashes: int) -> BlockStored:
    return BlockStored(
        block_hashes=array("Q", hashes),
        parent_block_hash=parent,
        token_ids=array("Q", range(16 * len(hashes))),
        block_size=16,
    )


@pytest.fixture
def budget() -> Budget:
    return Budget(100_000)


def test_orphans_are_found_by_their_parent_once(budget: Budget) -> None:
    orphans = Orphans(budget, count_copies=True)
    event = stored(1, 2, 3)
    assert orphans.add_event(event, EngineHash(1), GPU) == (0, 0)
    assert orphans.blocks == 2
    assert list(orphans.pop_children([9, 1])) == [event]
    assert list(orphans.pop_children([1])) == []
    assert {(found.engine_hash, found.copies) for found in orphans.pop_copies([2, 3])} == {
        (2, 1),
        (3, 1),
    }
    assert not orphans
    assert budget.used == 0


def test_copies_of_an_orphan_are_counted_by_place(budget: Budget) -> None:
    orphans = Orphans(budget, count_copies=True)
    for place in (GPU, GPU, CPU):
        assert orphans.add_copy(EngineHash(5), place)
    assert orphans.remove_copy(EngineHash(5), GPU)
    assert not orphans.remove_copy(EngineHash(6), GPU)
    adopted = orphans.pop_copies([5])
    assert sorted((found.place.tier, found.copies) for found in adopted) == [("cpu", 1), ("gpu", 1)]
    assert budget.used == 0


def test_a_removed_orphan_waits_no_longer_and_leaves_nothing_behind(budget: Budget) -> None:
    orphans = Orphans(budget, count_copies=True)
    orphans.add_event(stored(1, 2), EngineHash(1), GPU)
    assert orphans.remove_copy(EngineHash(2), GPU)
    assert list(orphans.pop_children([1])) == []
    assert budget.used == 0


def test_clearing_a_tier_of_orphans_leaves_the_other_tiers(budget: Budget) -> None:
    orphans = Orphans(budget, count_copies=True)
    orphans.add_copy(EngineHash(5), GPU)
    orphans.add_copy(EngineHash(5), CPU)
    orphans.add_copy(EngineHash(6), GPU)
    orphans.clear(["gpu"])
    assert [found.place for found in orphans.pop_copies([5, 6])] == [CPU]
    assert budget.used == 0


def test_the_oldest_orphans_make_room_and_are_counted() -> None:
    budget = Budget(3_000)
    orphans = Orphans(budget, count_copies=True)
    dropped = refused = 0
    for parent in range(100, 120):
        gone, kept_out = orphans.add_event(stored(parent, parent + 1000), EngineHash(parent), GPU)
        dropped += gone
        refused += kept_out
        assert budget.used <= budget.limit
    assert orphans.blocks == 20 - dropped - refused
    assert dropped > 0
    assert list(orphans.pop_children([119])) != []
    assert list(orphans.pop_children([100])) == []


def test_without_any_room_no_orphan_is_kept() -> None:
    budget = Budget(10)
    orphans = Orphans(budget, count_copies=True)
    assert orphans.add_event(stored(1, 2, 3), EngineHash(1), GPU) == (0, 2)
    assert not orphans.add_copy(EngineHash(4), GPU)
    assert not orphans
    assert budget.used == 0


def test_an_event_that_waits_is_charged_for_all_that_it_keeps() -> None:
    budget = Budget(10_000_000)
    orphans = Orphans(budget, count_copies=True)
    kept = 0
    for number in range(100):
        event = stored(1, 10 + number)
        event.extra_keys = [["x" * 1_000_000]]
        event.size = 1_001_000
        dropped, refused = orphans.add_event(event, EngineHash(1), GPU)
        assert refused == 0
        kept += 1 - dropped
    assert kept == 9
    assert budget.used <= budget.limit


def test_waiting_copies_are_charged_for_each_place() -> None:
    budget = Budget(1_000)
    orphans = Orphans(budget, count_copies=True)
    kept = [orphans.add_copy(EngineHash(5), Place("gpu", group)) for group in range(10)]
    assert kept == [True] * 4 + [False] * 6
    for group in range(4):
        assert orphans.remove_copy(EngineHash(5), Place("gpu", group))
    assert budget.used == 0
