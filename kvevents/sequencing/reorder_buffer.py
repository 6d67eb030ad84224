"""Live frames that wait until those before them have come."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvevents.budget import Budget
    from kvevents.sequencing.actions import ReceivedFrame


class ReorderBuffer:
    """Frames by number, within a shared budget of bytes."""

    __slots__ = ("_budget", "_frames", "_old")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._frames: dict[int, ReceivedFrame] = {}
        self._old: set[int] = set()

    def hold(self, arrival: ReceivedFrame) -> bool:
        """Keep a frame; False if there is no room for it."""
        if not self._budget.reserve(arrival.size):
            return False
        self.drop(lambda held: held.sequence == arrival.sequence)
        self._frames[arrival.sequence] = arrival
        return True

    def get(self, sequence: int) -> ReceivedFrame | None:
        """The held frame of this number."""
        return self._frames.get(sequence)

    def pop(self, sequence: int) -> ReceivedFrame:
        """The held frame of this number, no longer held."""
        arrival = self._frames.pop(sequence)
        self._old.discard(sequence)
        self._budget.release(arrival.size)
        return arrival

    def drop(self, unwanted: Callable[[ReceivedFrame], bool]) -> None:
        """Hold these no longer."""
        for sequence in [s for s, arrival in self._frames.items() if unwanted(arrival)]:
            self.pop(sequence)

    def reconnected(self) -> None:
        """Frames held from now on may be another publisher's than those held so far."""
        self._old.update(self._frames)

    def drop_old(self, *, everything: bool) -> None:
        """Hold those from before the last connection no longer, or none at all."""
        self.drop(lambda held: everything or held.sequence in self._old)

    def numbers(self) -> list[int]:
        """In ascending order."""
        return sorted(self._frames)

    def __len__(self) -> int:
        return len(self._frames)
