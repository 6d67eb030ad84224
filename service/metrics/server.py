"""Serves the metrics over HTTP, on a port of their own.

The server has a thread and an event loop of its own, so that it answers while the service is busy:
for `/healthz`, and to say that a scrape has failed. The index and the streams belong to the
service's event loop, and may change at any await; so that loop is asked for the values, and this
one only encodes them.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Self

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from service.metrics.http import HttpServer, bound_socket

if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket

    from prometheus_client.metrics_core import Metric

_COLLECT_TIMEOUT = 5.0  # seconds; Prometheus gives a scrape up after 10 by default


class MetricsServer:
    """An `async with` block in which `registry` is served over HTTP at `listen` (host:port).

    The collectors of the registry run on the event loop that enters the block.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        listen: str,
        connections: int = 32,
        idle_seconds: float = 10.0,
        is_serving: Callable[[], bool] = lambda: True,
    ) -> None:
        """Take what is served, and its bounds.

        Args:
            registry: the metrics.
            listen: host:port.
            connections: further ones are closed at once.
            idle_seconds: how long a connection may take to send its request, or to be read from.
            is_serving: what `/healthz` says; called from another thread.
        """
        self._registry = registry
        self._host, _, port = listen.rpartition(":")
        self._port = int(port)
        self._connections = connections
        self._idle_seconds = idle_seconds
        self._is_serving = is_serving

    async def __aenter__(self) -> Self:
        """Raises OSError if the address cannot be bound."""
        listening = bound_socket(self._host.strip("[]"), self._port)
        self._port = listening.getsockname()[1]
        # The collector has no names: without this option a scrape with ?name[]= would be empty.
        served = CollectorRegistry(support_collectors_without_names=True)
        served.register(_LoopCollector(self._registry, asyncio.get_running_loop()))
        http = HttpServer(served, self._connections, self._idle_seconds, self._is_serving)
        self._stop: Callable[[], object] = lambda: None
        started = threading.Event()
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._run(http, listening, started),), name="metrics"
        )
        self._thread.start()
        try:
            await asyncio.to_thread(started.wait)
        except asyncio.CancelledError:  # the thread would keep the process alive
            await asyncio.to_thread(started.wait)
            await self.__aexit__()
            raise
        return self

    async def _run(self, http: HttpServer, listening: socket, started: threading.Event) -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(stopped.set)
        try:
            await http.serve(listening, started.set, stopped.wait())
        finally:
            started.set()

    @property
    def port(self) -> int:
        """The port in use."""
        return self._port

    async def __aexit__(self, *exc_info: object) -> None:
        self._stop()
        # A thread waits for the server to stop, so that the loop can answer its last scrapes.
        await asyncio.to_thread(self._thread.join)


class _LoopCollector(Collector):
    """Collects a registry on the event loop, for the thread of the HTTP server."""

    def __init__(self, registry: CollectorRegistry, loop: asyncio.AbstractEventLoop) -> None:
        self._registry = registry
        self._loop = loop

    @override
    def collect(self) -> list[Metric]:
        """Every family. Raises TimeoutError, which fails the scrape, if the loop is too busy."""
        asked_at = time.monotonic()
        collecting = asyncio.run_coroutine_threadsafe(self._families(asked_at), self._loop)
        try:
            return collecting.result(_COLLECT_TIMEOUT)
        except TimeoutError:
            collecting.cancel()
            raise

    async def _families(self, asked_at: float) -> list[Metric]:
        families: list[Metric] = [
            GaugeMetricFamily(
                "kvatlas_loop_lag_seconds",
                "How long this scrape waited for its turn in the service's event loop.",
                time.monotonic() - asked_at,
            )
        ]
        for family in self._registry.collect():
            families.append(family)
            # Events and calls go first between two families: a scrape of a large fleet must not
            # delay them. Collectors therefore keep no iterator over shared state across a `yield`.
            await asyncio.sleep(0)
        return families
