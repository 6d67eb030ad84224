"""Gives freed memory back: of retired holders to the index, of the heap to the system.

The C library keeps what was freed between blocks that are still in use. After a burst of messages
that is more than the index itself: `malloc_trim` gives it back, where there is one (glibc).
"""

from __future__ import annotations

import asyncio
import ctypes
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from indexer import MemoryIndex

_SWEEP_SECONDS = 0.05
_CHECK_SECONDS = 5.0
_GROWTH = 16 * 1024**2  # bytes by which memory grows before it is looked at again
_LITTLE = 1024**2  # bytes
_STATM = Path("/proc/self/statm")


class HeapTrimmer:
    """Trims the heap after it has grown, until nothing more comes back.

    While memory grows slowly there is little to give back, and a trim takes less than a
    millisecond. After a burst it takes 0.25 ms for each MB, in a thread; what needs memory waits
    meanwhile.

    Args:
        resident: returns the bytes of memory that the process occupies.
        trim: gives back what it can.
    """

    def __init__(self, resident: Callable[[], int], trim: Callable[[], None]) -> None:
        self._resident = resident
        self._trim = trim
        self._settled = resident()
        self._before = self._settled
        self._has_grown = False

    async def check(self) -> None:
        """Trim the heap if it may be of use; to be called every few seconds."""
        before = self._resident()
        self._has_grown |= before > self._settled + _GROWTH
        if not self._has_grown:
            return
        await asyncio.to_thread(self._trim)
        after = self._resident()
        if abs(before - self._before) < _LITTLE and before - after < _LITTLE:
            self._settled, self._has_grown = after, False
        self._before = after


def heap_trimmer() -> HeapTrimmer | None:
    """A trimmer of this process's heap; None where the system has no such thing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None or not _STATM.exists():
        return None
    return HeapTrimmer(_resident_bytes, lambda: trim(0))


async def trim_heap() -> None:
    """Trim this process's heap whenever it is of use, for ever; do nothing where it cannot be."""
    trimmer = heap_trimmer()
    while True:
        await asyncio.sleep(_CHECK_SECONDS)
        if trimmer is not None:
            await trimmer.check()


async def sweep_index(index: MemoryIndex) -> None:
    """Free what retired holders left behind, a slice at a time, between everything else.

    A stranger's clears can keep it going for ever, so it takes a fifth of the time at most.
    """
    while True:
        started = time.perf_counter()
        more = index.sweep()
        seconds = time.perf_counter() - started
        await asyncio.sleep(4 * seconds if more else _SWEEP_SECONDS)


def _resident_bytes() -> int:
    return int(_STATM.read_text().split()[1]) * resource.getpagesize()
