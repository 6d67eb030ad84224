"""The embedded index: bounds, costs and what it says of itself."""

from __future__ import annotations

import random
from array import array

import pytest
from support.given_keys import GivenKeys

from indexer import EngineHash, MemoryIndex, Place, Worker

GPU, CPU = Place("gpu"), Place("cpu")
POD = Worker("a:1", 0)


def index_of(limit: int = 64 * 1024**2, count_copies: bool = True) -> MemoryIndex:
    index = MemoryIndex(limit, count_copies=count_copies)
    index.join(POD, "m")
    return index


def numbers(count: int, seed: int = 1) -> array[int]:
    source = random.Random(seed)
    return array("Q", [source.getrandbits(64) for _ in range(count)])


def matched(index: MemoryIndex, keys: array[int], pod: str = "a:1", model: str = "m") -> int:
    best = index.match(model, GivenKeys(keys)).best_of(pod)
    assert best is not None
    return best.matched_blocks


def test_a_block_with_two_copies_needs_two_removals() -> None:
    index, keys = index_of(), numbers(3)
    index.store(POD, GPU, keys, keys)
    index.store(POD, GPU, keys[:1], keys[:1])
    assert index.remove(POD, GPU, keys[:1]) == 0
    assert matched(index, keys) == 3
    assert index.remove(POD, GPU, keys[:1]) == 0
    assert matched(index, keys) == 0
    assert index.remove(POD, GPU, keys[:1]) == 1


def test_without_counted_copies_one_removal_removes_a_block() -> None:
    index, keys = index_of(count_copies=False), numbers(3)
    for _ in range(3):
        index.store(POD, GPU, keys, keys)
    index.remove(POD, GPU, keys[:1])
    assert matched(index, keys) == 0


def test_a_block_held_under_two_hashes_outlives_one_of_them() -> None:
    index, keys = index_of(), numbers(1)
    index.store(POD, GPU, array("Q", [1]), keys)
    index.store(POD, GPU, array("Q", [2]), keys)
    index.remove(POD, GPU, array("Q", [1]))
    assert index.remove(POD, GPU, array("Q", [1])) == 1
    assert matched(index, keys) == 1
    index.remove(POD, GPU, array("Q", [2]))
    assert matched(index, keys) == 0


def test_one_hash_may_mean_different_blocks_to_different_pods() -> None:
    index, keys = index_of(), numbers(2)
    other = Worker("b:1", 0)
    index.join(other, "m")
    index.store(POD, GPU, array("Q", [7]), keys[:1])
    index.store(other, GPU, array("Q", [7]), keys[1:])
    assert index.key_of(POD, EngineHash(7)) == keys[0]
    assert index.key_of(other, EngineHash(7)) == keys[1]
    index.remove(POD, GPU, array("Q", [7]))
    assert matched(index, keys[:1]) == 0
    assert matched(index, keys[1:], "b:1") == 1


def test_a_hash_means_nothing_to_a_pod_that_never_announced_it() -> None:
    index, keys = index_of(), numbers(1)
    other = Worker("b:1", 0)
    index.join(other, "m")
    index.store(POD, GPU, array("Q", [7]), keys)
    assert index.key_of(other, EngineHash(7)) is None
    assert index.store_known(other, CPU, array("Q", [7])) == 1


def test_a_wide_engine_block_stands_for_several_of_ours() -> None:
    index, keys = index_of(), numbers(8)
    index.store(POD, GPU, array("Q", [1, 2]), keys)
    assert matched(index, keys) == 8
    assert index.key_of(POD, EngineHash(1)) == keys[3]
    assert index.store_known(POD, CPU, array("Q", [1])) == 0
    index.remove(POD, GPU, array("Q", [2]))
    assert matched(index, keys) == 4
    index.remove(POD, GPU, array("Q", [1]))
    best = index.match("m", GivenKeys(keys)).best_of("a:1")
    assert best is not None
    assert (best.matched_blocks, best.by_tier) == (4, {"cpu": 4})
    assert best.score == pytest.approx(3.2)


def test_keys_that_do_not_spread_over_the_hashes_are_refused() -> None:
    with pytest.raises(ValueError, match="do not spread"):
        index_of().store(POD, GPU, numbers(2), numbers(3))


def test_models_with_an_adapter_of_the_same_name_stay_apart() -> None:
    index, keys = index_of(), numbers(4)
    other = Worker("b:1", 0)
    index.join(other, "another model")
    index.store(POD, GPU, keys, keys)
    assert matched(index, keys) == 4
    assert matched(index, keys, "b:1", "another model") == 0
    assert index.match("another model", GivenKeys(keys)).best_of("a:1") is None


def test_a_pod_that_changes_its_model_begins_anew() -> None:
    index, keys = index_of(), numbers(4)
    index.store(POD, GPU, keys, keys)
    index.join(POD, "new")
    assert matched(index, keys, model="new") == 0
    assert index.models() == ["new"]


def test_an_unknown_tier_weighs_nothing_and_names_do_not_pile_up() -> None:
    index, keys = index_of(), numbers(1)
    for number in range(200):
        index.store(POD, Place(f"tier-{number}"), keys, keys)
    best = index.match("m", GivenKeys(keys)).best_of("a:1")
    assert best is not None
    assert (best.score, best.matched_blocks) == (0.0, 1)
    assert len(index.tiers.names) <= 65


def test_the_memory_bound_evicts_the_longest_unused_and_counts() -> None:
    limit = 4 * 1024**2
    index = index_of(limit)
    hot, keys = numbers(64, seed=9), numbers(300_000)
    index.store(POD, GPU, hot, hot)
    for start in range(0, len(keys), 64):
        index.store(POD, GPU, keys[start : start + 64], keys[start : start + 64])
        if start % 640 == 0:
            assert matched(index, hot) == 64, start
    assert index.table.bytes_used <= limit
    assert index.table.evicted_mappings > 100_000
    assert matched(index, keys[-64:]) == 64
    assert matched(index, keys[:64]) == 0
    member_count = index.workers()[0].by_tier["gpu"]
    assert member_count == index.table.block_count


def test_evicted_blocks_can_be_stored_and_removed_again() -> None:
    index, keys = index_of(1024**2), numbers(60_000)
    for _ in range(2):
        for start in range(0, len(keys), 60):
            index.store(POD, GPU, keys[start : start + 60], keys[start : start + 60])
    while index.workers()[0].by_tier["gpu"]:
        before = index.workers()[0].by_tier["gpu"]
        index.remove(POD, GPU, keys)
        assert index.workers()[0].by_tier["gpu"] < before
    assert index.table.block_count == 0


def test_mappings_of_blocks_without_copies_are_evicted_first() -> None:
    index = index_of(2 * 1024**2)
    gone, held = numbers(20_000, seed=2), numbers(4_000, seed=3)
    index.store(POD, GPU, held, held)
    index.store(POD, GPU, gone, gone)
    index.remove(POD, GPU, gone)
    more = numbers(60_000, seed=4)
    for start in range(0, len(more), 50):
        index.store(POD, GPU, more[start : start + 50], more[start : start + 50])
        index.remove(POD, GPU, more[start : start + 50])
    assert index.table.evicted_mappings > 0
    assert index.table.evicted_blocks == 0
    assert index.workers()[0].by_tier["gpu"] == len(held)


def test_clearing_and_forgetting_leave_nothing_behind_in_a_tidied_index() -> None:
    index, keys = index_of(), numbers(5_000)
    index.store(POD, GPU, keys, keys)
    index.store(POD, CPU, keys[:100], keys[:100])
    index.clear(POD, ("gpu",))
    assert matched(index, keys) == 100
    assert index.key_of(POD, EngineHash(keys[4_000])) == keys[4_000]
    index.leave(POD)
    assert index.match("m", GivenKeys(keys)).best_of("a:1") is None
    while index.sweep():
        pass
    assert index.table.block_count == 0
    assert index.table.mapping_count == 0
    assert index.table.sets.live == 0


def test_clearing_a_worker_costs_the_same_however_much_it_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By what it touches, not by the clock: no slot is looked at."""
    index, keys = index_of(), numbers(50_000)
    index.store(POD, GPU, keys, keys)
    sets_before = len(index.table.sets)
    blocks_before = index.table.block_count
    index.clear(POD, ("gpu",))
    assert index.table.block_count == blocks_before  # left for `tidy`
    assert len(index.table.sets) == sets_before
    assert matched(index, keys) == 0


def test_holder_numbers_are_given_out_again() -> None:
    index, keys = index_of(), numbers(10)
    for _ in range(50):
        index.store(POD, GPU, keys, keys)
        index.clear(POD, ("gpu",))
        while index.sweep(256):
            pass
    assert index.table.holders < 10


def test_an_index_prints_what_it_holds() -> None:
    index, keys = index_of(), numbers(1_234)
    index.store(POD, GPU, keys, keys)
    assert repr(index) == "<MemoryIndex 1,234 blocks, 1 workers>"
    assert "1,234 blocks, 1,234 mappings, 2 holder sets" in repr(index.table)


def test_retired_holders_of_a_snapshot_count_for_nobody() -> None:
    index, keys = index_of(), numbers(10)
    for number in range(100):
        index.store(POD, Place(f"tier-{number}", 0), keys, keys)
    index.clear(POD, [f"tier-{number}" for number in range(1, 100)])
    loaded = MemoryIndex.load(iter(list(index.dump())), 64 * 1024**2, {})
    best = loaded.match("m", GivenKeys(keys)).best_of("a:1")
    assert best is not None
    assert best.by_tier == {"tier-0": 10}


def test_meanings_of_pods_that_have_left_make_room_for_others() -> None:
    index, keys = index_of(), numbers(400)
    for number, key in enumerate(keys[:256]):
        pod = Worker(f"p{number}", 0)
        index.join(pod, "m")
        assert index.store(pod, GPU, array("Q", [7]), array("Q", [key])) == 0
    assert index.store(POD, GPU, array("Q", [7]), keys[300:301]) == 1
    index.leave(Worker("p9", 0))
    assert index.store(POD, GPU, array("Q", [7]), keys[301:302]) == 0
    assert matched(index, keys[301:302]) == 1
    assert index.store(POD, GPU, array("Q", [7]), keys[302:303]) == 1


def test_an_event_leaves_the_copies_of_a_block_that_its_limit_allows() -> None:
    index, keys = index_of(), numbers(3)
    for _ in range(5):
        index.store(POD, GPU, keys, keys)
    index.limit_copies(POD, GPU, keys, [2, 0, 9])
    assert [index.remove(POD, GPU, keys[:1]) for _ in range(3)] == [0, 0, 1]
    assert index.remove(POD, GPU, keys[1:2]) == 1
    assert [index.remove(POD, GPU, keys[2:]) for _ in range(6)] == [0, 0, 0, 0, 0, 1]


def flooded(pod_share: float, shared_with: int = 1) -> tuple[MemoryIndex, array[int], array[int]]:
    """An index that another pod has flooded, with the honest keys and the flood's last ones.

    shared_with: pods that hold the honest blocks.
    """
    index = MemoryIndex(2 * 1024**2)
    index.table.ranks.pod_share = pod_share
    honest = numbers(4_000)
    for number in range(shared_with):
        index.join(Worker(f"honest{number}:1", 0), "m")
        index.store(Worker(f"honest{number}:1", 0), GPU, honest, honest)
    flood: array[int] = array("Q")
    for rank in range(2):  # of one pod
        index.join(Worker("flood:1", rank), "m")
    for seed in range(400):
        flood = numbers(500, seed + 2)
        index.store(Worker("flood:1", seed % 2), (GPU, CPU)[seed // 2 % 2], flood, flood)
    assert index.table.evicted_mappings > 100_000
    return index, honest, flood


@pytest.mark.parametrize("shared_with", [1, 3])
def test_a_pod_beyond_its_share_evicts_its_own_blocks_oldest_first(shared_with: int) -> None:
    index, honest, flood = flooded(0.5, shared_with)
    for number in range(shared_with):
        assert matched(index, honest, f"honest{number}:1") == len(honest)
    assert matched(index, flood, "flood:1") == len(flood)
    assert index.table.bytes_used <= index.table.limit_bytes * 17 // 16


def test_without_a_share_a_flood_evicts_the_blocks_of_others() -> None:
    index, honest, _ = flooded(1.0)
    assert matched(index, honest, "honest0:1") < len(honest)


def test_a_pod_within_its_share_is_not_evicted_first() -> None:
    """Two pods that hold a half each: neither has more than 0.6, so the oldest blocks go."""
    index = MemoryIndex(2 * 1024**2)
    index.table.ranks.pod_share = 0.6
    first, second = Worker("a:1", 0), Worker("b:1", 0)
    index.join(first, "m")
    index.join(second, "m")
    old = numbers(4_000)
    index.store(first, GPU, old, old)
    for seed in range(100):
        keys = numbers(500, seed + 2)
        index.store((first, second)[seed % 2], GPU, keys, keys)
    assert matched(index, old) == 0
    assert index.table.evicted_mappings
