"""A close look at an index says what was stored, and to whom it belongs."""

from __future__ import annotations

from array import array

from indexer import Holding, Inspection, MemoryIndex, Place, Worker

A, B = Worker("a:1", 0), Worker("b:1", 3)
GPU, CPU = Place("gpu"), Place("cpu", 2)


def index_with_blocks() -> MemoryIndex:
    index = MemoryIndex(2**24)
    for worker in (A, B):
        index.join(worker, "m")
    index.join(Worker("c:1", 0), "other")
    index.store(A, GPU, array("Q", [1, 2]), array("Q", [10, 20]))
    index.store(A, GPU, array("Q", [1]), array("Q", [10]))
    index.store(B, CPU, array("Q", [5]), array("Q", [10]))
    index.store(Worker("c:1", 0), GPU, array("Q", [1]), array("Q", [10]))
    return index


def test_the_holders_of_each_block_are_those_of_the_model() -> None:
    inspection = Inspection(index_with_blocks())
    assert inspection.holdings("m", array("Q", [10, 30, 20, 40])) == [
        {Holding(A, GPU), Holding(B, CPU)},
        set(),
        {Holding(A, GPU)},
        set(),
    ]
    assert inspection.holdings("nothing", array("Q", [10])) == [set()]
    assert inspection.holdings("m", array("Q")) == []


def test_a_worker_that_has_left_holds_nothing() -> None:
    index = index_with_blocks()
    index.leave(A)
    assert Inspection(index).holdings("m", array("Q", [10, 20])) == [{Holding(B, CPU)}, set()]


def test_an_engine_hash_means_what_its_worker_announced_with_its_copies() -> None:
    inspection = Inspection(index_with_blocks())
    found = inspection.meanings(A, array("Q", [1, 5, 2]))
    assert {(m.position, m.key, m.place, m.copies) for m in found} == {
        (0, 10, None, 0),
        (0, 10, GPU, 2),
        (2, 20, None, 0),
        (2, 20, GPU, 1),
    }
    assert inspection.meanings(Worker("nobody", 0), array("Q", [1])) == ()


def test_a_hash_that_stands_for_several_blocks_says_so() -> None:
    index = MemoryIndex(2**24)
    index.join(A, "m")
    index.store(A, GPU, array("Q", [1]), array("Q", [10, 11, 12]))
    found = [m for m in Inspection(index).meanings(A, array("Q", [1])) if m.place]
    assert [(m.key, m.blocks) for m in found] == [(12, 3)]


def test_what_is_held_is_counted_in_all_groups() -> None:
    inspection = Inspection(index_with_blocks())
    blocks = inspection.blocks_of(A)
    assert blocks is not None
    assert blocks.by_tier == {"gpu": 2}
    assert inspection.blocks_of(Worker("nobody", 0)) is None
