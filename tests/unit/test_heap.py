"""Memory that was freed goes back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.paths import ROOT

from service.heap import HeapTrimmer

MB = 1024**2

pytestmark = pytest.mark.anyio


class Process:
    """A process of so many bytes, some of which a trim gives back."""

    def __init__(self) -> None:
        self.resident = 100 * MB
        self.freed = 0
        self.trims = 0

    def trim(self) -> None:
        self.trims += 1
        self.resident -= self.freed
        self.freed = 0


async def test_a_heap_that_does_not_grow_is_left_alone() -> None:
    process = Process()
    trimmer = HeapTrimmer(lambda: process.resident, process.trim)
    for _ in range(3):
        process.resident += 5 * MB
        await trimmer.check()
    assert process.trims == 0


async def test_what_is_freed_after_the_heap_has_grown_is_given_back() -> None:
    process = Process()
    trimmer = HeapTrimmer(lambda: process.resident, process.trim)
    process.resident += 200 * MB  # a burst, of which everything waits
    await trimmer.check()
    process.freed = 150 * MB  # it was handled: the process occupies as much as before
    await trimmer.check()
    assert process.resident == 150 * MB
    for _ in range(5):
        await trimmer.check()
    before = process.trims
    await trimmer.check()
    assert process.trims == before, "nothing comes back any more"


FREES = """
import asyncio
from service.heap import heap_trimmer
trimmer = heap_trimmer()
if trimmer is not None:
    objects = [bytes(3000) for _ in range(20_000)]
    kept = objects[::500]
    full = trimmer._resident()
    del objects
    asyncio.run(trimmer.check())
    print(full - trimmer._resident())
"""


def test_what_was_freed_between_other_objects_is_given_back_to_the_system() -> None:
    """In a process of its own, whose heap nobody else has used."""
    command = [sys.executable, "-c", FREES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
    if not done.stdout:
        pytest.skip("this system cannot trim a heap")
    assert int(done.stdout) > 30 * MB
