"""All processes of a service, from the start until a signal."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from service.processes.child import Child
from service.processes.entrance import Entrance
from service.processes.told import SharedConfiguration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.config import Configuration

_GRACE_SECONDS = 30.0  # for what a process does besides answering calls, when it stops


class Supervisor:
    """Starts the processes, and starts again those that end, or are stuck.

    Args:
        configuration: of the service as a whole.
        command: starts one process, if what that is told follows.
    """

    def __init__(self, configuration: Configuration, command: Sequence[str]) -> None:
        self._configuration = configuration
        self.scoring = Entrance("grpc", spreads=True)
        self.admin = Entrance("admin", spreads=False)
        self._entrances = [self.scoring]
        if configuration.admin.listen:
            self._entrances.append(self.admin)
        self._timers: list[asyncio.TimerHandle] = []
        name = configuration.store.replica_name
        self._shared = SharedConfiguration(configuration)
        self._children = [
            Child(number, command, f"{name}-{number}", self._entrances, self._shared)
            for number in range(configuration.processes)
        ]

    def bind(self) -> None:
        """Listen, but accept nothing yet. Raises ListenError."""
        sections = (self._configuration.grpc, self._configuration.admin)
        for entrance, section in zip(self._entrances, sections, strict=False):
            entrance.bind(section.listen, may_move=getattr(section, "may_move", False))

    async def run(self, store_url: str) -> int:
        """Run until `stop`, and until all processes have ended.

        Returns the worst of their exit statuses. Raises StartFailedError, OSError.
        """
        runs = [
            asyncio.create_task(child.run(store_url), name=f"process {number}")
            for number, child in enumerate(self._children)
        ]
        watching = asyncio.create_task(self._watch(), name="watch")
        try:
            await asyncio.wait(runs, return_when=asyncio.FIRST_EXCEPTION)
            self.stop(signal.SIGTERM)  # the others, where one has failed
            await asyncio.wait(runs)
        finally:
            watching.cancel()
            for entrance in self._entrances:
                entrance.close()
            for timer in self._timers:
                timer.cancel()
            self._shared.close()
        failures = [failure for run in runs if (failure := run.exception()) is not None]
        if failures:
            raise failures[0]
        statuses = [run.result() for run in runs]
        return max(status if status >= 0 else 128 - status for status in statuses)

    async def _watch(self) -> None:
        """End processes that are stuck: those who have connections to them would wait for ever."""
        while True:
            await asyncio.sleep(1)
            for number in self.scoring.lost_after_one_second_more():
                self._children[number].abort()

    def stop(self, number: int) -> None:
        """Pass on the signal that ends the service; kill what does not end in time."""
        if self._timers:
            return
        bounds = self._configuration.grpc
        seconds = bounds.lame_duck_seconds + bounds.drain_seconds + _GRACE_SECONDS
        loop = asyncio.get_running_loop()
        for entrance in self._entrances:
            entrance.close_when_all_stop()
        for child in self._children:
            child.stop(number)
            self._timers.append(loop.call_later(seconds, child.kill))
