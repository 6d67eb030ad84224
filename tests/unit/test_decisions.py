"""The bounds of recorded routings; what they mean is in the property tests."""

from __future__ import annotations

from array import array

import pytest
from support.given_keys import GivenKeys

from indexer import MemoryIndex, Worker
from service.routing import Decisions, SpeculationFullError
from service.routing.decisions import MOST_BLOCKS
from service.routing.handles import NO_PROMISES, ScoredKeys

WORKER = Worker("a:1", 0)


def prompt(first: int, blocks: int) -> ScoredKeys:
    return ScoredKeys("m", 16, {16: array("Q", range(first, first + blocks))}, NO_PROMISES)


def test_decisions_beyond_the_memory_are_refused_and_counted_and_harm_no_other() -> None:
    now = 0.0
    decisions = Decisions(MemoryIndex(2**20), 2**20, lambda: now)
    added = 2**20 // (24 * 1000 + 2000)
    for number in range(added):
        decisions.add(bytes([number]), prompt(number * 10_000, 1000), WORKER, 10.0)
    with pytest.raises(SpeculationFullError):
        decisions.add(b"more", prompt(1_000_000, 1000), WORKER, 10.0)
    assert (decisions.refused, len(decisions)) == (1, added)
    for number in range(added):
        keys = GivenKeys(range(number * 10_000, number * 10_000 + 1000))
        assert decisions.match("m", keys) == {WORKER: 1000}
    now = 10.0
    assert decisions.match("m", GivenKeys(range(10))) == {}
    assert (len(decisions), decisions.bytes) == (0, 0)
    assert decisions.add(b"x", prompt(0, 1000), WORKER, 1.0)


def test_of_a_very_long_prompt_the_first_blocks_are_speculative() -> None:
    decisions = Decisions(MemoryIndex(2**20), 2**26, lambda: 0.0)
    decisions.add(b"x", prompt(0, MOST_BLOCKS + 100), WORKER, 1.0)
    assert decisions.match("m", GivenKeys(range(MOST_BLOCKS + 100))) == {WORKER: MOST_BLOCKS}


def test_a_decision_that_is_recorded_without_end_takes_memory_once() -> None:
    decisions = Decisions(MemoryIndex(2**20), 2**20, lambda: 0.0)
    for seconds in range(1000, 0, -1):
        decisions.add(b"x", prompt(0, 10), WORKER, seconds / 10)
    assert len(decisions) == 1
    assert len(decisions._expiries) == 1
