"""What a discovery tells, for tests that wait for it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from service.config.discovery import KubernetesSection
from service.discovery.kubernetes import ApiLimits, KubernetesDiscovery, Pace
from support.deadlines import DEADLINE_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from service.discovery import DiscoveredPod

PACE = Pace(watch_seconds=5.0, backoff_first=0.01, backoff_limit=0.1, page_objects=3)
LIMITS = ApiLimits(timeout_seconds=20.0, answer_bytes=200_000, line_bytes=20_000)
IMPATIENT = replace(LIMITS, timeout_seconds=1.0)
"""For servers that do not answer; a busy machine may be slower than this as well."""


class Told:
    """Takes what is told.

    Attributes:
        discovery: who tells.
        history: the addresses of every telling.
        states: which were ready.
    """

    def __init__(self, discovery: KubernetesDiscovery) -> None:
        self.discovery = discovery
        self.history: list[set[str]] = []
        self.states: list[dict[str, bool]] = []
        self._pods: dict[str, DiscoveredPod] = {}
        self._changed = asyncio.Event()

    def found(self, pods: Collection[DiscoveredPod]) -> None:
        """What a discovery is given to tell."""
        self._pods = {pod.address: pod for pod in pods}
        assert len(self._pods) == len(pods), "an address was told twice"
        self.history.append(set(self._pods))
        self.states.append({pod.address: pod.is_ready for pod in pods})
        self._changed.set()

    @property
    def addresses(self) -> set[str]:
        """Of all pods that were told last."""
        return set(self._pods)

    @property
    def ready(self) -> set[str]:
        """Of those that are ready."""
        return {address for address, pod in self._pods.items() if pod.is_ready}

    def pod(self, address: str) -> DiscoveredPod:
        """The pod of an address."""
        return self._pods[address]

    async def until(self, condition: Callable[[Told], bool]) -> None:
        """Wait for a telling after which something is so."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not (self.history and condition(self)):
                self._changed.clear()
                await self._changed.wait()

    async def until_addresses(self, *addresses: str) -> None:
        """Wait until these are told."""
        await self.until(lambda told: told.addresses == set(addresses))


@asynccontextmanager
async def discovering(
    url: str,
    *,
    limit: int = 1000,
    pace: Pace = PACE,
    limits: ApiLimits = LIMITS,
    **settings: Any,
) -> AsyncIterator[Told]:
    """Discover the pods that an API server knows; those of the namespace `models` by default."""
    values = {"namespaces": ["models"], "api_server": url, **settings}
    if "service" not in values:
        values.setdefault("selector", "app=vllm")
    discovery = KubernetesDiscovery(KubernetesSection(**values), limit, pace, limits)
    told = Told(discovery)
    task = asyncio.create_task(discovery.run(told.found))
    try:
        yield told
        assert not task.done(), "it has ended by itself"
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
    assert not discovery.status.is_watched
