"""Pods that register themselves, or that somebody registers, at the administration."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from typing_extensions import override

from service.discovery.pods import Discovery

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from service.discovery.pods import DiscoveredPod


class TooManyPodsError(Exception):
    """As many pods as are allowed are registered."""


class RegisteredPods(Discovery):
    """Remembers pods until they are unregistered, or for the time that they were registered for.

    Args:
        most: how many there may be.
        now: the time in seconds.
    """

    def __init__(self, most: int, now: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._now = now
        self._pods: dict[str, tuple[DiscoveredPod, float | None]] = {}
        self._changed = asyncio.Event()

    @property
    @override
    def name(self) -> str:
        return "registered"

    def register(self, pod: DiscoveredPod, seconds: float | None) -> None:
        """Remember a pod, in place of what was registered for its address.

        seconds: for how long; None: until it is unregistered.

        Raises TooManyPodsError.
        """
        if pod.address not in self._pods and len(self._pods) >= self._most:
            raise TooManyPodsError
        self._pods[pod.address] = pod, None if seconds is None else self._now() + seconds
        self._changed.set()

    def unregister(self, address: str) -> bool:
        """Forget a pod; returns whether it was registered."""
        was_registered = self._pods.pop(address, None) is not None
        self._changed.set()
        return was_registered

    @override
    async def run(self, found: Callable[[Collection[DiscoveredPod]], None]) -> None:
        while True:
            now = self._now()
            for address, (_, until) in list(self._pods.items()):
                if until is not None and until <= now:
                    del self._pods[address]
            self._changed.clear()
            found([pod for pod, _ in self._pods.values()])
            ends = [until for _, until in self._pods.values() if until is not None]
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), min(ends) - now if ends else None)
