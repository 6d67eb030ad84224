"""What strangers' events cost: steps in proportion to their blocks, however these are chosen.

A step is a slot that a search passes, or a holder that a new set is made of. Time is not measured.
"""

from __future__ import annotations

import random
from array import array
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer import MemoryIndex, Place, ReplicatedIndex, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

GPU, CPU = Place("gpu"), Place("cpu")
POD = Worker("a:1", 0)
STEPS_PER_BLOCK = 40
"""Slots are at most 13/16 full, where a search passes 3 others on average, and each block of an
event is searched for a few times. A quadratic cost is thousands."""
MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def index_of(limit: int = 2**30) -> MemoryIndex:
    index = MemoryIndex(limit)
    index.join(POD, "m")
    return index


# Shapes: how many -> so many hashes that some fixed hash function would put into one place.


def multiples(step: int) -> Callable[[int], array[int]]:
    return lambda count: array("Q", [i * step & MASK for i in range(1, count + 1)])


def home_slots_of(odd: int) -> Callable[[int], array[int]]:
    """Hashes whose product with `odd` has equal upper bits."""
    inverse = pow(odd, -1, 2**64)
    return lambda count: array(
        "Q", [((0x42 << 56) | i * 0x9E37 & 0xFFFFFF) * inverse & MASK for i in range(count)]
    )


def folded(shift: int) -> Callable[[int], array[int]]:
    return lambda count: array("Q", [i ^ (i << shift) & MASK for i in range(1, count + 1)])


SHAPES: dict[str, Callable[[int], array[int]]] = {
    "one after the other": multiples(1),
    "multiples of 2**20": multiples(2**20),
    "multiples of 2**40": multiples(2**40),
    "multiples of 2**48": multiples(2**48),
    "multiples of the golden ratio": multiples(GOLDEN),
    "multiples of its inverse": multiples(pow(GOLDEN, -1, 2**64)),
    "equal upper bits of golden products": home_slots_of(GOLDEN),
    "equal upper bits": home_slots_of(1),
    "folded by 32 bits": folded(32),
    "folded by 24 bits": folded(24),
}


def steps_of(index: MemoryIndex, act: Callable[[], object]) -> int:
    before = index.table.steps
    act()
    return index.table.steps - before


@pytest.mark.parametrize("shape", SHAPES)
def test_hashes_that_a_stranger_chooses_cost_as_much_as_any(shape: str) -> None:
    index, hashes = index_of(), SHAPES[shape](6_000)
    allowed = STEPS_PER_BLOCK * len(hashes)
    assert steps_of(index, lambda: index.store(POD, GPU, hashes, hashes)) < allowed
    assert steps_of(index, lambda: index.store_known(POD, CPU, hashes)) < allowed
    assert steps_of(index, lambda: index.remove(POD, GPU, hashes)) < allowed
    assert steps_of(index, lambda: index.remove(POD, CPU, hashes)) < allowed


@settings(max_examples=10, suppress_health_check=list(HealthCheck))
@given(st.integers(1, MASK), st.integers(0, MASK), st.integers(0, 63))
def test_hashes_in_any_progression_cost_as_much_as_any(step: int, first: int, shift: int) -> None:
    index = index_of()
    hashes = array("Q", dict.fromkeys((first + (i * step << shift)) & MASK for i in range(2000)))
    allowed = STEPS_PER_BLOCK * len(hashes) + 4000
    assert steps_of(index, lambda: index.store(POD, GPU, hashes, hashes)) < allowed
    assert steps_of(index, lambda: index.remove(POD, GPU, hashes)) < allowed


def test_a_hash_with_many_contents_costs_no_more_than_many_hashes() -> None:
    index = index_of()
    keys = array("Q", random.Random(1).randbytes(8 * 6_000))
    same = array("Q", [7]) * len(keys)
    allowed = STEPS_PER_BLOCK * len(keys)
    assert steps_of(index, lambda: index.store(POD, GPU, same, keys)) < allowed
    assert steps_of(index, lambda: index.remove(POD, GPU, same)) < allowed


def test_a_hash_that_many_pods_give_contents_costs_a_bounded_search() -> None:
    index = index_of()
    keys = array("Q", random.Random(1).randbytes(8 * 2_000))
    pods = [Worker(f"p{number}:1", 0) for number in range(500)]
    for pod in pods:
        index.join(pod, "m")

    def announce() -> None:
        for number, key in enumerate(keys):
            index.store(pods[number % len(pods)], GPU, array("Q", [7]), array("Q", [key]))

    # At most 256 meanings, and each search may pass all of them.
    assert steps_of(index, announce) < 600 * len(keys)
    assert index.table.mapping_count == 256


def test_clears_between_stores_do_not_make_sets_grow() -> None:
    index, block = index_of(), array("Q", [7])

    def alternate() -> None:
        for _ in range(3000):
            index.store(POD, GPU, block, block)
            index.clear(POD, ("gpu",))

    assert steps_of(index, alternate) < STEPS_PER_BLOCK * 3000
    assert index.table.sets.bytes < 8 * 2**20


def test_a_clear_of_an_empty_pod_leaves_nothing_to_sweep() -> None:
    index = index_of()
    unknown = array("Q", [7])
    for _ in range(1000):
        index.store_known(POD, GPU, unknown)
        index.clear(POD, ("gpu",))
    assert not index.sweep()
    assert index.table.holders <= 2
    index.store(POD, GPU, unknown, unknown)
    index.clear(POD, ("gpu",))
    assert index.sweep(), "this one has held a block"


def test_pods_that_share_blocks_in_all_combinations_stay_within_the_memory_bound() -> None:
    limit = 4 * 2**20
    index = MemoryIndex(limit)
    source = random.Random(1)
    pods = [Worker(f"p{number}:1", 0) for number in range(40)]
    blocks = array("Q", source.randbytes(8 * 4000))
    for pod in pods:
        index.join(pod, "m")
    index.store(pods[0], GPU, blocks, blocks)
    for _ in range(400):
        chosen = array("Q", source.sample(blocks, 200))
        index.store(source.choice(pods), GPU, chosen, chosen)
    assert index.table.bytes_used < limit * 1.2
    assert index.evicted()


def test_pods_that_join_are_not_sorted_each_time() -> None:
    index = ReplicatedIndex(2**20)
    compared = 0

    class Counted(str):
        __slots__ = ()

        def __lt__(self, other: str) -> bool:
            nonlocal compared
            compared += 1
            return str.__lt__(self, other)

    for number in range(2000):
        index.join(Worker(Counted(f"p{number}"), 0), "m")
    assert len(index.pods_of("m")) == 2000
    assert index.pods_of("m") == sorted(index.pods_of("m"))
    assert compared < 2000 * 100
