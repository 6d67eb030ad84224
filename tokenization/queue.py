"""Texts that wait for a thread: large ones do not hold small ones back, nor wait for ever.

A text's turn comes at the moment it arrived plus a multiple of the time it is estimated to take.
So a small text overtakes large ones, and a large one is overtaken only by texts that arrive soon
after it. While large texts occupy all threads, one more thread takes a small one.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tokenization.errors import CallerGoneError, TokenizersBusyError
from tokenization.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tokenization.chat import Caller

_T = TypeVar("_T")

_LARGE_BYTES = 256 * 1024
_PATIENCE = 8.0  # by how many times its own duration a text lets others overtake it
WAITED_BOUNDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
"""Upper bounds of the histogram of the seconds that texts waited."""


class Drop(StrEnum):
    """Why a text was refused, or given up before a thread began with it."""

    QUEUE_FULL = "queue_full"
    QUEUE_BYTES = "queue_bytes"
    TOO_LATE = "too_late"  # it would have waited beyond its deadline
    EXPIRED = "expired"  # its deadline passed while it waited
    CANCELLED = "cancelled"  # its caller went while it waited


@dataclass(frozen=True)
class QueueLimits:
    """How much is worked on at a time, and how much may wait."""

    threads: int = 2
    waiting: int = 64
    waiting_bytes: int = 64 * 1024**2
    """Beyond it no further large text may wait. Small ones may: together they are small, too."""


@dataclass
class QueueCounts:
    """Counts since the start."""

    done: int = 0
    seconds: float = 0.0
    """Time that threads spent on texts."""
    dropped: Counter[Drop] = field(default_factory=Counter)
    waited: list[int] = field(default_factory=lambda: [0] * (len(WAITED_BOUNDS) + 1))
    """Texts by the seconds that they waited: up to each of the bounds, and beyond them."""
    waited_seconds: float = 0.0


@dataclass(eq=False)
class Place:
    """A text's place in the queue, from its admission to its end."""

    size: int
    caller: Caller
    turn: float
    """The place with the lowest one is next."""
    number: int
    arrived: float
    work: Callable[[], Any] = int
    """What a thread is to do, once the place is ready."""
    is_ready: bool = False
    started: float | None = None
    result: asyncio.Future[Any] | None = None

    @property
    def is_large(self) -> bool:
        """Whether it may hold others back."""
        return self.size > _LARGE_BYTES

    def __lt__(self, other: Place) -> bool:
        return (self.turn, self.number) < (other.turn, other.number)


class TextQueue:
    """Runs work on texts in threads. Not thread-safe itself: it belongs to the event loop.

    Attributes:
        pending: places whose work has not begun.
        running: places that a thread works on.
        counts: since the start.
        pace: how long texts take.

    Args:
        limits: of threads, and of what waits.
        clock: returns seconds.
    """

    def __init__(self, limits: QueueLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self.pending: set[Place] = set()
        self.running: set[Place] = set()
        self.counts = QueueCounts()
        self.pace = Pace()
        self._limits = limits
        self._clock = clock
        self._numbers = itertools.count()
        self._pool = ThreadPoolExecutor(limits.threads + 1, thread_name_prefix="tokenize")

    @property
    def pending_bytes(self) -> int:
        """Size of the texts whose work has not begun."""
        return sum(place.size for place in self.pending)

    def close(self) -> None:
        """Give up what waits, stop renderings, and wait for the threads."""
        for place in self.pending | self.running:
            place.caller.is_gone = True
            if place.result is not None:
                place.result.cancel()
        self.pending.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    @contextmanager
    def place(self, size: int, caller: Caller) -> Iterator[Place]:
        """Admit a text of `size` bytes within a `with` block, which may `run` its work.

        Raises TokenizersBusyError if there is no room, or if the deadline would pass first.
        """
        place = self._admit(size, caller)
        try:
            yield place
        except asyncio.CancelledError:
            caller.is_gone = True
            raise
        finally:
            self._leave(place)

    def _admit(self, size: int, caller: Caller) -> Place:
        now = self._clock()
        turn = now + _PATIENCE * self.pace.seconds(size)
        place = Place(size, caller, turn, next(self._numbers), now)
        wait, drop = self._wait(place, now), None
        if len(self.pending) + len(self.running) >= self._limits.threads + self._limits.waiting:
            drop = Drop.QUEUE_FULL
        elif wait and place.is_large and self.pending_bytes + size > self._limits.waiting_bytes:
            drop = Drop.QUEUE_BYTES
        elif wait and caller.deadline is not None and now + wait > caller.deadline:
            drop = Drop.TOO_LATE
        if drop is not None:
            self.counts.dropped[drop] += 1
            raise TokenizersBusyError(len(self.pending) + len(self.running), wait)
        self.pending.add(place)
        return place

    async def run(self, place: Place, work: Callable[[], _T]) -> _T:
        """Return the result of `work`, which a thread runs when the place's turn has come.

        Raises what it raises, and CallerGoneError if the deadline passed before it began.
        """
        place.work, place.result = work, asyncio.get_running_loop().create_future()
        place.is_ready = True
        self._begin()
        return cast("_T", await place.result)

    def _leave(self, place: Place) -> None:
        """Give up a place whose work has not begun; nothing if it has."""
        if place not in self.pending:
            return
        self.pending.discard(place)
        if place.caller.is_gone:
            left = place.caller.seconds_left()
            is_late = left is not None and left <= 0  # gRPC cancels a call when its time is over
            self.counts.dropped[Drop.EXPIRED if is_late else Drop.CANCELLED] += 1

    # Turns

    def _begin(self) -> None:
        """Begin with as many texts as threads are free."""
        while (place := self._next()) is not None:
            self.pending.discard(place)
            now = self._clock()
            if place.caller.deadline is not None and now > place.caller.deadline:
                self.counts.dropped[Drop.EXPIRED] += 1
                _settle(place, CallerGoneError())
                continue
            self._count_wait(now - place.arrived)
            place.caller.queue_seconds += now - place.arrived
            place.started = now
            self.running.add(place)
            self._pool.submit(self._work, place, asyncio.get_running_loop())

    def _next(self) -> Place | None:
        ready = [place for place in self.pending if place.is_ready]
        if not self._is_thread_free():
            ready = [place for place in ready if not place.is_large and self._has_side_thread()]
        return min(ready, default=None)

    def _is_thread_free(self) -> bool:
        return len(self.running) < self._limits.threads

    def _has_side_thread(self) -> bool:
        """Whether a small text may begin beside the large ones that occupy all threads."""
        threads = self._limits.threads
        return len(self.running) == threads and all(place.is_large for place in self.running)

    def _work(self, place: Place, loop: asyncio.AbstractEventLoop) -> None:
        """Do a place's work, in a thread."""
        start = time.perf_counter()
        outcome: object
        try:
            outcome = place.work()
        except BaseException as error:  # noqa: BLE001 - it is raised where the place is waited for
            outcome = error
        seconds = time.perf_counter() - start
        with suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(self._on_done, place, outcome, seconds)

    def _on_done(self, place: Place, outcome: object, seconds: float) -> None:
        self.running.discard(place)
        place.caller.work_seconds += seconds
        if not isinstance(outcome, BaseException):
            self.counts.done += 1
            self.counts.seconds += seconds
            self.pace.learn(place.size, seconds)
        _settle(place, outcome)
        self._begin()

    def _count_wait(self, seconds: float) -> None:
        bucket = sum(bound < seconds for bound in WAITED_BOUNDS)
        self.counts.waited[bucket] += 1
        self.counts.waited_seconds += seconds

    # Estimates

    def _wait(self, place: Place, now: float) -> float:
        """Return the seconds that a new place is likely to wait, 0 if it can begin at once.

        The threads are free when they are done with what they run and with what is before it. Large
        texts never delay a small one, because of the side thread.
        """
        running, before = self.running, [other for other in self.pending if other < place]
        if not place.is_large:
            running = {other for other in running if not other.is_large}
            before = [other for other in before if not other.is_large]
        free_at = [self._remaining(other, now) for other in running]
        free_at += [0.0] * (self._limits.threads - len(self.running))
        free_at = free_at or [0.0]
        heapq.heapify(free_at)
        for other in sorted(before):
            heapq.heapreplace(free_at, free_at[0] + self.pace.seconds(other.size))
        return free_at[0]

    def _remaining(self, running: Place, now: float) -> float:
        elapsed = now - (running.started or now)
        # What takes longer than estimated is likely to go on for a while.
        return max(self.pace.seconds(running.size) - elapsed, elapsed / 4)


def _settle(place: Place, outcome: object) -> None:
    """Hand the outcome to whoever waits for it, if anybody does."""
    result = place.result
    if result is None or result.done():
        return
    if isinstance(outcome, BaseException):
        result.set_exception(outcome)
    else:
        result.set_result(outcome)
