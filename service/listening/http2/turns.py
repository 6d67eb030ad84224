"""Which connection is read next, where all together have sent more than one step takes."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

# In the cost of a frame: 1, and for a header block as much more as takes 20 microseconds at most.
_ROUND_COST = 512  # of what is read in one round of the event loop while nobody waits
_LITTLE_COST = 256  # what is left until then: a round only to begin anew would take time itself
_STEP_COST = 256  # likewise of one connection
_TURN_COSTS = (16, 128, 512)  # of one connection while others wait, by the queue that it is in
_SHARE_COST = 160  # of one queue in one round


class Reader(Protocol):
    """A connection, as its turn comes."""

    waits_for_turn: bool

    def next_cost(self) -> int:
        """Return the cost of its next frame; 0 if there is none that can be read now."""

    def read(self, most: int) -> int:
        """Read frames of at most this cost, or a single one. Returns what they cost."""

    def pause(self) -> None:
        """Take no more from the operating system."""

    def resume(self) -> None:
        """Take more from it, unless something else is against it."""


class Turns:
    """Lets the connections of a listener read, within what one round of the event loop may take.

    Connections beyond that wait in one of three queues: those whose next frame costs little, those
    whose next frame costs more, and those who send long header blocks. Each queue has its share of
    every round and is served in turn. So who sends little waits at most for a small turn of each
    other connection, and not for the long header blocks of anybody.
    """

    def __init__(self) -> None:
        self._left = _ROUND_COST
        self._has_next_round = False
        self._queues: tuple[deque[Reader], ...] = tuple(deque() for _ in _TURN_COSTS)

    def ask(self, reader: Reader) -> None:
        """Let a connection read what it has: now, or when its turn comes."""
        if reader.waits_for_turn:
            return
        if self._left > 0 and not any(self._queues):
            self._left -= reader.read(min(_STEP_COST, self._left))
        self._wait(reader)
        if self._left < _LITTLE_COST or any(self._queues):
            self._plan_round()

    def _wait(self, reader: Reader) -> None:
        cost = reader.next_cost()
        if cost:
            if not reader.waits_for_turn:
                reader.waits_for_turn = True
                reader.pause()
            place = sum(cost > most for most in _TURN_COSTS[:-1])
            self._queues[place].append(reader)
        elif reader.waits_for_turn:
            reader.waits_for_turn = False
            reader.resume()

    def _plan_round(self) -> None:
        if not self._has_next_round:
            self._has_next_round = True
            asyncio.get_running_loop().call_soon(self._begin_round)

    def _begin_round(self) -> None:
        self._has_next_round = False
        self._left = _ROUND_COST
        for most, queue in zip(_TURN_COSTS, self._queues, strict=True):
            left = _SHARE_COST
            while queue and left > 0:
                reader = queue.popleft()
                left -= reader.read(most)  # nothing, if it is closed or its peer takes no answers
                self._wait(reader)
        if any(self._queues):
            self._plan_round()
