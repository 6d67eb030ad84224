"""Tells of the pods of all namespaces together."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from typing_extensions import override

from service.discovery.kubernetes.access import access_of
from service.discovery.kubernetes.client import ApiClient, ApiLimits
from service.discovery.kubernetes.collection import Collection, merged
from service.discovery.kubernetes.endpoint_slices import EndpointSliceReader
from service.discovery.kubernetes.pods import PodReader
from service.discovery.kubernetes.reflector import Pace, Reflector
from service.discovery.kubernetes.status import CollectionStatus, KubernetesStatus
from service.discovery.metrics import KubernetesCollector
from service.discovery.pods import Discovery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from collections.abc import Collection as Several

    from prometheus_client.registry import Collector as MetricsCollector

    from service.config.discovery import KubernetesSection
    from service.discovery.kubernetes.collection import ObjectReader
    from service.discovery.pods import DiscoveredPod


class KubernetesDiscovery(Discovery):
    """Discovers the pods that a label selector finds, or the endpoints of a service.

    Args:
        section: what to look for and where; it is enabled.
        limit: pods, at most; those beyond it are left out and counted.
        pace: how often to ask; None: as the section says.
        limits: of answers; None: as the section says.

    Attributes:
        status: how recent the pods are, and what went wrong; for all runs together.

    Raises:
        AccessError: it is not known how to reach an API server.
    """

    def __init__(
        self,
        section: KubernetesSection,
        limit: int,
        pace: Pace | None = None,
        limits: ApiLimits | None = None,
    ) -> None:
        self._access = access_of(section)
        self._reader: ObjectReader = (
            EndpointSliceReader(section) if section.service else PodReader(section)
        )
        self._limit = limit
        self._pace = pace or Pace(section.watch_seconds)
        self._limits = limits or ApiLimits(section.timeout_seconds)
        self.status = KubernetesStatus(
            {namespace: CollectionStatus() for namespace in self._access.namespaces}
        )

    @property
    @override
    def name(self) -> str:
        return "kubernetes"

    @override
    def collectors(self) -> Iterator[MetricsCollector]:
        yield KubernetesCollector(self.status)

    @override
    async def run(self, found: Callable[[Several[DiscoveredPod]], None]) -> None:
        reflectors: list[Reflector] = []
        changed = asyncio.Event()
        for collection_status in self.status.collections.values():
            collection_status.is_listed = False
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            for namespace in self._access.namespaces:
                client = await stack.enter_async_context(ApiClient(self._access, self._limits))
                copy = Collection(self._reader, self._limit, self.status.skipped)
                reflectors.append(
                    Reflector(client, namespace, copy, self.status, self._pace, changed.set)
                )
            for reflector in reflectors:
                group.create_task(reflector.run(), name=f"kubernetes {reflector.namespace}")
            group.create_task(self._tell(reflectors, changed, found), name="kubernetes")

    async def _tell(
        self,
        reflectors: list[Reflector],
        changed: asyncio.Event,
        found: Callable[[Several[DiscoveredPod]], None],
    ) -> None:
        """Tell of all pods when some have changed. Ends only if cancelled."""
        told: dict[str, DiscoveredPod] | None = None
        while True:
            await changed.wait()
            changed.clear()
            if not all(each.is_listed for each in self.status.collections.values()):
                continue
            endpoints = (e for each in reflectors for e in each.collection.endpoints)
            pods = merged(endpoints, self._limit)
            if pods != told:
                told = pods
                self.status.pods = len(pods)
                found(tuple(pods.values()))
                await asyncio.sleep(self._pace.tell_seconds)
