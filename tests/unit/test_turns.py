"""Long work takes turns: other work comes in between, and it ends at its deadline."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from service.rpc.bounds.turns import LongWork, Turns
from service.rpc.errors import DeadlineOverError


class Context:
    """The context of a call with a deadline."""

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline

    def time_remaining(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


def work(turns: Turns, deadline: float | None = None) -> LongWork:
    context: Any = Context(deadline)
    return LongWork(turns, context)


async def test_waiting_calls_go_one_at_a_time_in_the_order_in_which_they_came() -> None:
    turns, order = Turns(), []

    async def call(number: int) -> None:
        for _ in range(2):
            await turns.next()
            order.append(number)
            rounds.append(asyncio.get_running_loop().time())

    rounds: list[float] = []
    await asyncio.gather(*(call(number) for number in range(3)))
    assert order == [0, 1, 2, 0, 1, 2]
    assert rounds == sorted(rounds)


async def test_short_work_is_done_between_two_slices_of_long_work() -> None:
    turns, slices_between = Turns(), []
    slices = 0

    async def long() -> None:
        nonlocal slices
        while not done.is_set():
            await turns.next()
            slices += 1

    done = asyncio.Event()
    longs = [asyncio.create_task(long()) for _ in range(20)]
    for _ in range(10):
        before = slices
        for _ in range(5):  # a call needs a few rounds of the loop
            await asyncio.sleep(0)
        slices_between.append(slices - before)
    done.set()
    await asyncio.gather(*longs)
    assert max(slices_between) <= 2


async def test_a_waiting_call_that_is_cancelled_loses_its_turn_to_the_next() -> None:
    turns = Turns()
    first, second = (asyncio.create_task(turns.next()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert first.cancelled()


async def test_a_call_pauses_only_when_its_slice_is_over() -> None:
    turns = Turns()
    one = work(turns)
    begun = time.perf_counter()
    pauses = 0
    while time.perf_counter() - begun < 0.02:
        before = time.perf_counter()
        await one.pause()
        pauses += time.perf_counter() - before > 0.0005
    assert 1 <= pauses <= 10


async def test_long_work_ends_at_the_deadline_of_its_caller() -> None:
    one = work(Turns(), deadline=time.monotonic() + 0.02)

    async def endless() -> None:
        while True:
            await one.pause()

    with pytest.raises(DeadlineOverError):
        await endless()


async def test_the_first_of_all_long_calls_need_not_wait() -> None:
    turns = Turns()
    async with asyncio.timeout(0):
        await turns.first()
    waiting = asyncio.create_task(turns.first())
    await asyncio.sleep(0)
    assert not waiting.done()
    await waiting
