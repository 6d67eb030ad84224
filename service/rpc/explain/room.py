"""How many explanations are under way at once."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from service.rpc.errors import TooBusyError

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_CALLS = 4
"""Calls under way at the same time, at all listeners."""


class ExplainRoom:
    """Lets a few calls in at the same time: each costs as much as hundreds of scores."""

    def __init__(self) -> None:
        self._calls = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place within this block. Raises TooBusyError if there is none."""
        if self._calls >= MOST_CALLS:
            raise TooBusyError(
                f"{self._calls} explanations are under way, as many as there may be", ""
            )
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
