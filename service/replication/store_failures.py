"""Counts failures of the store, and repeats what may fail."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from store import Failures, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_log = structlog.get_logger("kvatlas.service")


class StoreFailures:
    """Failures of this replica's calls of the store, logged once per change of kind."""

    def __init__(self) -> None:
        self.counts = Failures()
        """By kind."""
        self._current = ""

    def record(self, error: StoreError) -> None:
        """Count a failure."""
        self.counts.record(error)
        if self._current != error.kind:
            _log.warning("store_fails", kind=error.kind, detail=str(error))
        self._current = error.kind

    def clear(self) -> None:
        """The store answers again: the next failure is logged, of whatever kind."""
        self._current = ""


async def repeat(
    seconds: float, action: Callable[[], Awaitable[None]], failures: StoreFailures
) -> None:
    """Run an action for ever, with pauses of `seconds`; failures of the store do not end it."""
    while True:
        try:
            await action()
        except StoreError as error:
            failures.record(error)
        await asyncio.sleep(seconds)
