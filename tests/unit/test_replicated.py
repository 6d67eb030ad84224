"""The embedded index as one copy of several: what all of them must say alike."""

from __future__ import annotations

from array import array
from itertools import permutations

from support.given_keys import GivenKeys

from indexer import Place, ReplicatedIndex, Worker

WORKERS = [Worker("a:1", 0), Worker("a:1", 1), Worker("b:1", 0)]
BLOCK = array("Q", [7])


def test_every_replica_answers_in_the_same_order_with_the_same_rank_among_equals() -> None:
    for joined in permutations(WORKERS):
        index = ReplicatedIndex(2**20)
        for worker in joined:
            index.join(worker, "m")
            index.store(worker, Place("gpu"), BLOCK, BLOCK)
        assert index.pods_of("m") == ["a:1", "b:1"]
        assert [blocks.worker for blocks in index.workers()] == WORKERS
        assert index.workers_of("m") == WORKERS
        best = index.match("m", GivenKeys(BLOCK)).best_of("a:1")
        assert best is not None
        assert best.worker == WORKERS[0]
