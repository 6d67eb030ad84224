"""What was begun and takes long: it goes on in slices, so that requests are answered in between."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Unfinished:
    """Long work, in the order in which it was begun."""

    def __init__(self) -> None:
        self._work: deque[Callable[[], bool]] = deque()

    def add(self, go_on: Callable[[], bool]) -> None:
        """Add work: each call of `go_on` does a slice of it, and returns whether some remains."""
        self._work.append(go_on)

    def go_on(self, deadline: float) -> bool:
        """Do slices until `deadline` (`time.perf_counter`); returns whether any work remains."""
        while self._work and time.perf_counter() < deadline:
            self.step()
        return bool(self._work)

    def step(self) -> None:
        """Do one slice of what was begun first."""
        go_on = self._work.popleft()
        if go_on():
            self._work.appendleft(go_on)

    def finish(self) -> None:
        """Do all of it."""
        while self._work:
            self.step()

    def __bool__(self) -> bool:
        return bool(self._work)
