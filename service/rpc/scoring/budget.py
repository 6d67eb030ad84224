"""The time after which a request wants its answer, as far as it has got by then."""

from __future__ import annotations

import asyncio


class LatencyBudget:
    """The latency budget of one request, which begins now."""

    __slots__ = ("ends_at",)

    def __init__(self, milliseconds: int) -> None:
        """Args: milliseconds: 0 for no limit."""
        loop = asyncio.get_running_loop() if milliseconds else None
        self.ends_at = None if loop is None else loop.time() + milliseconds / 1000
        """By the clock of the event loop; None: never."""

    @property
    def is_over(self) -> bool:
        """Whether the answer is to be sent now."""
        return self.ends_at is not None and asyncio.get_running_loop().time() >= self.ends_at
