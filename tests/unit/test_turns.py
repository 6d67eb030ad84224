"""Who is read when all together send more than the event loop can read: counted, not timed."""

from __future__ import annotations

import asyncio
from collections import deque

from service.listening.http2.turns import Turns


class Sender:
    """A connection with frames to be read, of these costs; `read_at` gets the round of each."""

    def __init__(self, clock: list[int], *costs: int) -> None:
        self.waits_for_turn = False
        self.is_paused = False
        self.read_at: list[int] = []
        self.frames = deque(costs)
        self._clock = clock

    def next_cost(self) -> int:
        return self.frames[0] if self.frames else 0

    def read(self, most: int) -> int:
        cost = 0
        while self.frames and (not cost or cost + self.frames[0] <= most):
            cost += self.frames.popleft()
            self.read_at.append(self._clock[0])
        self._clock[1] += cost
        return cost

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False


async def rounds(clock: list[int], most: int = 10**6) -> list[int]:
    """Let the event loop go round until nothing more is read; what was read in each round."""
    costs: list[int] = []
    while len(costs) < most:
        before, clock[1] = clock[1], 0
        costs.append(before)
        if not before and len(costs) > 2:
            return costs
        clock[0] += 1
        await asyncio.sleep(0)
    return costs


async def test_a_connection_alone_is_read_at_once() -> None:
    turns, clock = Turns(), [0, 0]
    sender = Sender(clock, *[1] * 10)
    turns.ask(sender)
    assert not sender.frames
    assert not sender.waits_for_turn


async def test_a_round_is_bounded_however_many_connections_there_are() -> None:
    turns, clock = Turns(), [0, 0]
    senders = [Sender(clock, *[20] * 20) for _ in range(200)]
    for sender in senders:
        turns.ask(sender)
    costs = await rounds(clock)
    assert sum(costs) == 20 * 20 * 200
    assert max(costs) <= 1024
    assert not any(sender.is_paused or sender.frames for sender in senders)


async def test_one_that_sends_little_passes_many_that_send_much() -> None:
    turns, clock = Turns(), [0, 0]
    for _ in range(1000):
        turns.ask(Sender(clock, *[200] * 50))
    await rounds(clock, 20)
    honest = Sender(clock, 17, 1)
    came = clock[0]
    turns.ask(honest)
    assert honest.is_paused
    await rounds(clock, 3)
    assert max(honest.read_at) - came <= 2
    assert not honest.is_paused


async def test_short_header_blocks_pass_long_ones_that_came_before() -> None:
    turns, clock = Turns(), [0, 0]
    for _ in range(300):
        turns.ask(Sender(clock, 4000))
    honest = [Sender(clock, 17, 1) for _ in range(20)]
    for sender in honest:
        turns.ask(sender)
    await rounds(clock, 4)
    assert not any(sender.frames for sender in honest)


async def test_connections_that_send_the_same_are_read_alike() -> None:
    turns, clock = Turns(), [0, 0]
    senders = [Sender(clock, *[8] * 5000) for _ in range(30)]
    for sender in senders:
        turns.ask(sender)
    await rounds(clock, 60)
    had = [8 * len(sender.read_at) for sender in senders]
    assert min(had) > 100
    assert sorted(had)[-2] - min(had) <= 16  # the first one had more before the others came


async def test_one_that_sends_little_all_the_time_waits_for_no_long_header_block() -> None:
    turns, clock = Turns(), [0, 0]
    for _ in range(1000):
        turns.ask(Sender(clock, *[330] * 100))
    honest, waited = Sender(clock), []
    for _ in range(100):
        came = clock[0]
        honest.frames += [3, 1]
        turns.ask(honest)
        await rounds(clock, 3)
        waited += [at - came for at in honest.read_at]
        honest.read_at.clear()
    assert len(waited) == 200
    assert max(waited) <= 1


async def test_long_header_blocks_are_read_however_many_send_little() -> None:
    turns, clock = Turns(), [0, 0]
    for _ in range(1000):
        turns.ask(Sender(clock, *[1] * 10_000))
    long = Sender(clock, 400)
    turns.ask(long)
    await rounds(clock, 3)
    assert long.read_at


async def test_one_that_is_closed_while_it_waits_is_forgotten() -> None:
    turns, clock = Turns(), [0, 0]
    senders = [Sender(clock, *[200] * 10) for _ in range(10)]
    for sender in senders:
        turns.ask(sender)
    senders[-1].frames.clear()
    turns.ask(senders[-1])
    await rounds(clock)
    assert not senders[-1].read_at
    assert not senders[-1].waits_for_turn
    assert not any(sender.frames for sender in senders)
