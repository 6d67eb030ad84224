"""Background loops of the service: a loop that dies is logged, counted and started again."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Self

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    Loop = Callable[[], Coroutine[Any, Any, None]]

_BACKOFF_FIRST, _BACKOFF_LIMIT = 0.1, 5.0
_HEALTHY_SECONDS = 30.0  # a loop that has run for so long is restarted without much delay

_log = structlog.get_logger("kvatlas.service")


class Loops:
    """Owns named loops in one task group; stops them at the end of its `async with` block.

    A loop runs until it is stopped. One that raises or returns is started again after a back-off.
    """

    def __init__(self) -> None:
        self.deaths: Counter[str] = Counter()
        """How often each loop has died."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop(*self._tasks)
        await self._group.__aexit__(None, None, None)

    def start(self, name: str, loop: Loop) -> None:
        """Start a loop under a name that no other loop has."""
        self._tasks[name] = self._group.create_task(self._supervise(name, loop), name=name)

    async def stop(self, *names: str) -> None:
        """Stop loops, and wait until they have stopped."""
        tasks = [task for name in names if (task := self._tasks.pop(name, None)) is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _supervise(self, name: str, loop: Loop) -> None:
        backoff = _BACKOFF_FIRST
        while True:
            started_at = time.monotonic()
            try:
                await loop()
                _log.error("loop_died", loop=name, detail="the loop has returned")
            except asyncio.CancelledError:
                if _is_stopped():
                    raise
                _log.exception("loop_died", loop=name)  # something within it was cancelled
            except Exception:  # noqa: BLE001 - whatever it is, the loop has to run again
                _log.exception("loop_died", loop=name)
            self.deaths[name] += 1
            if time.monotonic() - started_at > _HEALTHY_SECONDS:
                backoff = _BACKOFF_FIRST
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311
            backoff = min(2 * backoff, _BACKOFF_LIMIT)


def _is_stopped() -> bool:
    """Whether somebody has cancelled the task that runs this."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
