"""Handles are opaque, bounded in bytes, and expire."""

from __future__ import annotations

from array import array

import pytest

from indexer import Worker
from service.routing import Handles, HandleUnknownError, Promise, Promises, ScoredKeys

WORKERS = [Worker("a:1", 0), Worker("a:1", 1), Worker("b:1", 0)]
PROMISES = Promises(WORKERS, array("I", [16, 32, 0]), array("I", [1, 2, 0]), b"\x01\x00\x01")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def prompt(blocks: int = 4) -> ScoredKeys:
    return ScoredKeys("m", 16, {16: array("Q", range(blocks))}, PROMISES)


def test_a_handle_is_valid_for_its_time_alone() -> None:
    clock = Clock()
    handles = Handles(2**20, 5.0, clock)
    first = handles.add(prompt())
    clock.now = 4.9
    second = handles.add(prompt())
    assert handles.get(first).promises is PROMISES
    clock.now = 5.0
    with pytest.raises(HandleUnknownError):
        handles.get(first)
    handles.get(second)
    assert (len(handles), handles.dropped) == (1, 0)


def test_the_oldest_handles_are_dropped_for_want_of_memory() -> None:
    handles = Handles(3 * prompt().size, 5.0, Clock())
    given = [handles.add(prompt()) for _ in range(5)]
    assert len(set(given)) == 5
    assert (len(handles), handles.dropped) == (3, 2)
    for handle in given[2:]:
        handles.get(handle)
    for handle in given[:2]:
        with pytest.raises(HandleUnknownError):
            handles.get(handle)


def test_a_prompt_that_is_larger_than_all_may_be_gets_no_handle() -> None:
    handles = Handles(10_000, 5.0, Clock())
    kept = handles.add(prompt())
    assert handles.add(prompt(2000)) == b""
    assert handles.dropped == 1
    handles.get(kept)


def test_handles_of_two_processes_differ_in_how_they_begin() -> None:
    first, second = Handles(2**20, 5.0, Clock()), Handles(2**20, 5.0, Clock())
    handle = first.add(prompt())
    assert len(handle) <= 64
    assert first.gave(handle)
    assert not second.gave(handle)
    with pytest.raises(HandleUnknownError):
        second.get(handle)


def test_the_promise_of_a_pod_is_that_of_its_most_promising_rank() -> None:
    assert PROMISES.best_rank("a:1") == Worker("a:1", 1)
    assert PROMISES.best_rank("c:1") is None
    assert PROMISES.of(Worker("a:1", 0)) == Promise(16, 1, is_exact=True)
    assert PROMISES.of(Worker("a:1", 1)) == Promise(32, 2, is_exact=False)
    assert PROMISES.of(Worker("a:1", 2)) is None
