"""Long work in slices: the calls that have much to do take turns, with all others in between."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol

from service.rpc.errors import DeadlineOverError

SLICE_SECONDS = 0.002
"""How long a call works before it lets others go first."""
_GAP_SECONDS = 0.001  # what is left to short calls and events between two slices
_CROWD = 4  # with more calls waiting than this, the gaps are longer:
_CROWDED_GAP_SECONDS = 0.006
_IDLE_SECONDS = 0.02  # after so long without a slice, the next call need not wait
_MOST_SLOWED = 32


class Turns:
    """Wakes the calls that wait for their next slice: one at a time, the longest waiting first.

    Without it, the slices of many long calls would follow each other without a gap, and a short
    call, which needs several rounds of the event loop, would wait for all of them in each.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._last = 0.0

    async def first(self) -> None:
        """Wait for the first slice of a call, which is now if no other call works in slices."""
        loop = asyncio.get_running_loop()
        if self._timer is None and loop.time() - self._last > _IDLE_SECONDS:
            self._last = loop.time()
        else:
            await self.next()

    async def next(self) -> None:
        """Wait for the next slice."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        if self._timer is None:
            self._timer = loop.call_later(self._gap(), self._wake)
        await turn

    async def slow_down(self) -> None:
        """Wait as if for a slice, unless many wait: before a refusal that will be tried again.

        Receiving a large request costs about as much as looking at it.
        """
        if len(self._waiting) < _MOST_SLOWED:
            await self.next()

    def _wake(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        self._last = loop.time()
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # a call that is over has cancelled it
                turn.set_result(None)
                break
        if self._waiting:
            self._timer = loop.call_later(self._gap(), self._wake)

    def _gap(self) -> float:
        return _GAP_SECONDS if len(self._waiting) <= _CROWD else _CROWDED_GAP_SECONDS


class HasDeadline(Protocol):
    """A call, or a part of one, that somebody waits for."""

    def time_remaining(self) -> float | None:
        """Return the seconds until the caller gives it up; None if it never does."""


class LongWork:
    """The work of one call, which begins with its first slice."""

    def __init__(self, turns: Turns, context: HasDeadline) -> None:
        self._turns = turns
        self._context = context
        self._began = time.perf_counter()

    def time_remaining(self) -> float | None:
        """Return the seconds until the caller's deadline; None if it has none."""
        return self._context.time_remaining()

    async def pause(self) -> None:
        """Let others go first if the slice is over. Call it every fraction of a millisecond.

        Raises:
            DeadlineOverError: the caller's deadline is over.
            CancelledError: the caller has gone.
        """
        if time.perf_counter() - self._began >= SLICE_SECONDS:
            await self.next_slice()

    async def first_slice(self) -> None:
        """Wait until it is the call's turn to begin. Raises as `pause`."""
        await self._turns.first()
        self._began = time.perf_counter()

    async def next_slice(self) -> None:
        """Let others go first. Raises as `pause`."""
        await self._turns.next()
        if self._context.time_remaining() == 0:
            raise DeadlineOverError
        self._began = time.perf_counter()
