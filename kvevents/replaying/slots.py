"""Which replays may run at the same time, so that silent replay sockets do not hold up others."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_PER_HOST = 2
_MOST_REMEMBERED = 4096  # silent endpoints


class ReplaySlots:
    """Slots for replays: a few for each host, and a quarter of all for silent endpoints.

    Args:
        concurrent: how many replays run at a time.
    """

    def __init__(self, concurrent: int) -> None:
        self._slots = asyncio.Semaphore(concurrent)
        self._slots_of_silent = asyncio.Semaphore(max(1, concurrent // 4))
        self._hosts: dict[str, asyncio.Semaphore] = {}
        self._users: Counter[str] = Counter()  # of each host
        self._silent: OrderedDict[str, None] = OrderedDict()

    @asynccontextmanager
    async def take(self, endpoint: str) -> AsyncIterator[None]:
        """Wait for a slot, and hold it within the block."""
        host = endpoint.rpartition(":")[0] if endpoint.startswith("tcp:") else endpoint
        turn = self._hosts.setdefault(host, asyncio.Semaphore(_PER_HOST))
        self._users[host] += 1
        try:
            async with turn:
                slots = self._slots_of_silent if endpoint in self._silent else self._slots
                async with slots:
                    yield
        finally:
            self._users[host] -= 1
            if not self._users[host]:
                del self._users[host], self._hosts[host]

    def on_silence(self, endpoint: str) -> None:
        """The replay socket has not answered in time."""
        self._silent[endpoint] = None
        if len(self._silent) > _MOST_REMEMBERED:
            self._silent.popitem(last=False)

    def on_answer(self, endpoint: str) -> None:
        """The replay socket has answered."""
        self._silent.pop(endpoint, None)
