"""What was begun and takes long: it goes on in slices, so that requests are answered in between."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

_SLICE_SECONDS = 0.0005  # how long it may keep requests waiting

_log = structlog.get_logger("kvatlas.kvevents")


class Unfinished:
    """Long work; what was begun last is done first."""

    def __init__(self) -> None:
        self._work: deque[Callable[[], bool]] = deque()
        self._was_added = asyncio.Event()

    def add(self, go_on: Callable[[], bool]) -> None:
        """Add work, to be done before what was added earlier.

        Each call of `go_on` does a slice of it, and returns whether some remains. A frame that is
        being decoded waits until the frames before it, which a replay has brought, are applied.
        """
        self._work.appendleft(go_on)
        self._was_added.set()

    async def run(self) -> None:
        """Do what is added, for ever; other tasks run every half millisecond."""
        while True:
            await self._was_added.wait()
            deadline = time.perf_counter() + _SLICE_SECONDS
            try:
                while self._work and time.perf_counter() < deadline:
                    self.step()
            except Exception:  # noqa: BLE001 - the work that failed is gone; the rest goes on
                _log.exception("slice_failed")
            if not self._work:
                self._was_added.clear()
            await asyncio.sleep(0)

    def step(self) -> None:
        """Do one slice of what was begun last."""
        go_on = self._work.popleft()
        if go_on():
            self._work.appendleft(go_on)

    def finish(self) -> None:
        """Do all of it."""
        while self._work:
            self.step()

    def __bool__(self) -> bool:
        return bool(self._work)
