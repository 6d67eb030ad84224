"""Whose turn it is, what is refused, and what is given up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tokenization import TokenizersBusyError
from tokenization.chat import Caller
from tokenization.errors import CallerGoneError
from tokenization.pace import Pace
from tokenization.queue import Drop, QueueLimits, TextQueue

SMALL, LARGE = 1000, 10_000_000
SECOND = 1_000_000
"""Bytes that take a second, once a queue has learned it."""


class Texts:
    """Texts whose work lasts until the test lets it end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, **limits: int) -> None:
        self.queue = TextQueue(QueueLimits(**limits), clock)
        for _ in range(100):
            self.queue.pace.learn(SECOND, 1.0)
        self.begun: list[str] = []
        self._holds: dict[str, threading.Event] = {}
        self._calls: dict[str, asyncio.Task[str]] = {}

    async def add(self, name: str, size: int, *, held: bool = False, **caller: Any) -> None:
        """Have a text wait for its turn, or raise what refuses it."""
        self._holds[name] = threading.Event()
        if not held:
            self._holds[name].set()
        call = asyncio.create_task(self._run(name, size, Caller(**caller)))
        self._calls[name] = call
        await asyncio.sleep(0)
        if call.done() and call.exception() is not None:
            await call

    async def _run(self, name: str, size: int, caller: Caller) -> str:
        with self.queue.place(size, caller) as place:
            return await self.queue.run(place, lambda: self._work(name))

    def _work(self, name: str) -> str:
        self.begun.append(name)
        assert self._holds[name].wait(20)
        return name

    async def done(self, *names: str) -> list[str]:
        """The results of texts whose work is let end, or ends by itself."""
        for name in names:
            self._holds[name].set()
        return list(await asyncio.gather(*(self._calls[name] for name in names)))

    async def cancel(self, name: str) -> None:
        self._calls[name].cancel()
        with suppress(asyncio.CancelledError):
            await self._calls[name]


async def test_a_small_text_is_done_while_large_ones_occupy_all_threads() -> None:
    texts = Texts(threads=2)
    for name in ("large 1", "large 2", "large 3"):
        await texts.add(name, LARGE, held=True)
    for name in ("small 1", "small 2"):
        await texts.add(name, SMALL)
    assert await texts.done("small 1", "small 2") == ["small 1", "small 2"]
    assert texts.begun == ["large 1", "large 2", "small 1", "small 2"]
    await texts.done("large 1", "large 2", "large 3")
    assert texts.queue.counts.done == 5


async def test_small_texts_take_no_more_threads_than_are_configured() -> None:
    texts = Texts(threads=2)
    for name in ("a", "b", "c"):
        await texts.add(name, SMALL, held=True)
    assert len(texts.queue.running) == 2
    await texts.done("a")
    assert len(texts.queue.running) == 2
    await texts.done("b", "c")
    assert texts.queue.running == set()


async def test_a_large_text_is_overtaken_only_by_what_arrives_soon_after_it() -> None:
    now = 0.0
    texts = Texts(lambda: now, threads=1)
    await texts.add("first", SMALL, held=True)
    await texts.add("large", LARGE)
    now = 1.0
    await texts.add("soon after", SMALL)
    now = 1000.0
    await texts.add("much later", SMALL)
    await texts.done("first", "soon after", "large", "much later")
    assert texts.begun == ["first", "soon after", "large", "much later"]


async def test_the_estimate_of_a_wait_counts_what_is_running() -> None:
    now = time.monotonic()
    texts = Texts(lambda: now, threads=1)
    await texts.add("running", 10 * SECOND, held=True)
    with pytest.raises(TokenizersBusyError, match=r"1 prompts .* 10\.000 s"):
        await texts.add("late", 10 * SECOND, deadline=now + 9)
    await texts.add("in time", 10 * SECOND, deadline=now + 11)
    with pytest.raises(TokenizersBusyError, match=r"2 prompts .* 20\.000 s"):
        await texts.add("behind both", 11 * SECOND, deadline=now + 19)
    now += 4  # the running text has 6 seconds left
    with pytest.raises(TokenizersBusyError, match=r"2 prompts .* 16\.000 s"):
        await texts.add("later", 11 * SECOND, deadline=now + 15)
    assert texts.queue.counts.dropped == {Drop.TOO_LATE: 3}
    await texts.done("running", "in time")


async def test_a_small_text_beside_large_ones_is_refused_only_for_what_is_before_it() -> None:
    now = time.monotonic()
    texts = Texts(lambda: now, threads=1)
    await texts.add("large", LARGE, held=True)
    await texts.add("larger", 2 * LARGE)
    await texts.add("beside it", SECOND // 5, held=True, deadline=now + 0.01)
    with pytest.raises(TokenizersBusyError, match=r"0\.200 s"):
        await texts.add("too late", SMALL, deadline=now + 0.1)
    await texts.add("in time", SMALL, deadline=now + 100)
    assert await texts.done("beside it", "in time") == ["beside it", "in time"]
    await texts.done("large", "larger")


async def test_the_texts_that_wait_are_bounded_by_number_and_by_size() -> None:
    texts = Texts(threads=1, waiting=4, waiting_bytes=2 * LARGE)
    for name in ("running", "a", "b"):
        await texts.add(name, LARGE, held=True)
    assert texts.queue.pending_bytes == 2 * LARGE
    with pytest.raises(TokenizersBusyError):
        await texts.add("one too large", LARGE)
    for name in ("beside them", "small"):
        await texts.add(name, SMALL, held=True)
    assert texts.queue.pending_bytes == 2 * LARGE + SMALL
    await texts.done("running", "a", "b", "beside them", "small")
    assert texts.queue.counts.dropped == {Drop.QUEUE_BYTES: 1}
    for name in ("running", "1", "2", "3", "4"):
        await texts.add(name, SMALL, held=True)
    with pytest.raises(TokenizersBusyError):
        await texts.add("one too many", SMALL)
    assert texts.queue.counts.dropped[Drop.QUEUE_FULL] == 1
    await texts.done("running", "1", "2", "3", "4")


async def test_a_text_larger_than_may_wait_begins_on_a_free_thread() -> None:
    texts = Texts(threads=1, waiting=0, waiting_bytes=0)
    await texts.add("a", LARGE)
    assert await texts.done("a") == ["a"]


async def test_no_thread_begins_with_what_nobody_waits_for() -> None:
    texts = Texts(threads=1)
    await texts.add("running", LARGE, held=True)
    await texts.add("gone", LARGE)
    await texts.add("late", LARGE, deadline=time.monotonic() + 3600)
    (late,) = (place for place in texts.queue.pending if place.caller.deadline is not None)
    late.caller.deadline = time.monotonic() - 1
    await texts.add("patient", LARGE)
    await texts.cancel("gone")
    await texts.done("running", "patient")
    with pytest.raises(CallerGoneError):
        await texts.done("late")
    assert texts.begun == ["running", "patient"]
    assert texts.queue.counts.dropped == {Drop.CANCELLED: 1, Drop.EXPIRED: 1}
    assert texts.queue.pending_bytes == 0


async def test_a_running_text_learns_that_its_caller_has_gone() -> None:
    queue, caller, seen = TextQueue(QueueLimits(threads=1)), Caller(), threading.Event()

    def work() -> None:
        while not caller.is_gone:
            pass
        seen.set()

    async def call() -> None:
        with queue.place(SMALL, caller) as place:
            await queue.run(place, work)

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    assert len(queue.running) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(seen.wait, 10)
    assert queue.counts.dropped == {}


async def test_waits_are_counted_by_their_length() -> None:
    now = 0.0
    texts = Texts(lambda: now, threads=1)
    await texts.add("a", SMALL, held=True)
    await texts.add("b", SMALL)
    now = 1.5
    await texts.done("a", "b")
    assert texts.queue.counts.waited == [1, 0, 0, 0, 0, 1, 0, 0]
    assert texts.queue.counts.waited_seconds == 1.5


async def test_the_error_of_a_text_is_its_caller_s_and_frees_the_thread() -> None:
    queue = TextQueue(QueueLimits(threads=1))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), queue.place(SMALL, Caller()) as place:
            await queue.run(place, lambda: 1 // 0)
    assert queue.running == queue.pending == set()


async def test_a_closed_queue_leaves_nobody_waiting() -> None:
    queue = TextQueue(QueueLimits(threads=1))
    callers = [Caller(), Caller()]

    def work() -> None:
        while not callers[0].is_gone:
            pass

    async def call(caller: Caller) -> None:
        with queue.place(LARGE, caller) as place:
            await queue.run(place, work)

    calls = [asyncio.create_task(call(caller)) for caller in callers]
    await asyncio.sleep(0)
    queue.close()
    for ended in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(ended, asyncio.CancelledError)


def test_the_pace_follows_what_texts_take() -> None:
    pace = Pace()
    for _ in range(100):
        pace.learn(SECOND, 2.0)
    assert pace.seconds(SECOND) == pytest.approx(2.0, rel=0.01)
    assert pace.seconds(0) == pace.seconds(4096) > 0
    for _ in range(100):
        pace.learn(SECOND, 0.5)
    assert pace.seconds(2 * SECOND) == pytest.approx(1.0, rel=0.01)
