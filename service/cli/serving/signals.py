"""SIGTERM and SIGINT: the first one stops what runs, the second one ends it at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from service.cli.interruption import SIGNALS, kill_children

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import FrameType


class StopSignals:
    """What the process has been told, from now on. Made by the task that starts the service.

    Until `started` is called a signal cancels that task.

    Args:
        second_ends: whether a second signal ends the process at once. One of several processes may
            get the first one twice: from whoever stops them all, and from the supervisor, which
            kills it if that is told twice.
    """

    def __init__(self, *, second_ends: bool = True) -> None:
        self._second_ends = second_ends
        self._loop = asyncio.get_running_loop()
        self._starting = asyncio.current_task()
        self._told = asyncio.Event()
        self.first: int | None = None
        """The first signal that came."""
        for number in SIGNALS:
            # Not the loop's: it would not hear the second signal while something blocks it.
            signal.signal(number, self._on_signal)

    @property
    def has_come(self) -> bool:
        """Whether a signal has come."""
        return self.first is not None

    def started(self) -> None:
        """The service has started: from now on a signal is waited for."""
        self._starting = None

    def stop(self) -> None:
        """Do as if a first signal had come from a terminal."""
        if self.first is None:
            self.first = signal.SIGINT
            self._tell()

    async def wait(self) -> None:
        """Wait for the first signal."""
        await self._told.wait()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._loop.is_closed():  # all has ended
            return
        if self.first is None:
            self.first = number
            self._loop.call_soon_threadsafe(self._tell)
            return
        if not self._second_ends:
            return
        kill_children()
        sys.stderr.write("kvatlas: ended at once by a second signal\n")
        sys.stderr.flush()
        os._exit(128 + number)

    def _tell(self) -> None:
        self._told.set()
        if self._starting is not None:
            self._starting.cancel()


def run_until_signalled(main: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine, which the first signal cancels. Returns the exit status."""
    return asyncio.run(_until_signalled(main))


async def _until_signalled(main: Coroutine[Any, Any, int]) -> int:
    signals = StopSignals()
    try:
        return await main
    except asyncio.CancelledError:
        if signals.first is None:
            raise
        return 128 + signals.first
