"""Frames that are applied in slices, because they have many events."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvevents.stream.performer import Performer


class Unfinished:
    """The streams that have begun to apply a frame, in the order in which they began."""

    def __init__(self) -> None:
        self._performers: deque[Performer] = deque()

    def add(self, performer: Performer) -> None:
        """Go on with what a stream has begun."""
        self._performers.append(performer)

    def go_on(self, deadline: float) -> bool:
        """Apply slices until `deadline` (`time.perf_counter`); returns whether any remain."""
        performers = self._performers
        while performers and time.perf_counter() < deadline:
            if not performers[0].go_on():
                performers.popleft()
        return bool(performers)

    def finish(self) -> None:
        """Apply all that was begun."""
        while self._performers:
            self._performers.popleft().finish()
