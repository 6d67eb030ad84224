"""Live frames that wait until the frames before them have come."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvevents.budget import Budget
    from kvevents.sequencing.actions import ReceivedFrame


class ReorderBuffer:
    """Frames by sequence number, within a budget of bytes that all workers share."""

    __slots__ = ("_budget", "_frames", "_from_former_connection")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._frames: dict[int, ReceivedFrame] = {}
        self._from_former_connection: set[int] = set()

    def add(self, frame: ReceivedFrame) -> bool:
        """Keep a frame, in place of another one of its number; False if there is no room."""
        if not self._budget.reserve(frame.size):
            return False
        if frame.sequence in self._frames:
            self.pop(frame.sequence)
        self._frames[frame.sequence] = frame
        return True

    def get(self, sequence: int) -> ReceivedFrame | None:
        """The frame of this number, None if there is none."""
        return self._frames.get(sequence)

    def pop(self, sequence: int) -> ReceivedFrame:
        """Remove and return the frame of this number. Raises KeyError."""
        frame = self._frames.pop(sequence)
        self._from_former_connection.discard(sequence)
        self._budget.release(frame.size)
        return frame

    def drop(self, unwanted: Callable[[ReceivedFrame], bool]) -> int:
        """Remove the frames for which `unwanted` returns True; returns how many there were."""
        dropped = [sequence for sequence, frame in self._frames.items() if unwanted(frame)]
        for sequence in dropped:
            self.pop(sequence)
        return len(dropped)

    def mark_connection_change(self) -> None:
        """Remember that later frames may be from another publisher than the present ones."""
        self._from_former_connection.update(self._frames)

    def drop_from_former_connection(self) -> int:
        """Remove the frames from before the last `mark_connection_change`; returns how many."""
        return self.drop(lambda frame: frame.sequence in self._from_former_connection)

    def clear(self) -> int:
        """Remove all frames; returns how many there were."""
        return self.drop(lambda _: True)

    def numbers(self) -> list[int]:
        """The sequence numbers, ascending."""
        return sorted(self._frames)

    def __len__(self) -> int:
        return len(self._frames)
