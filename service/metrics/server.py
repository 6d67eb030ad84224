"""Serves Prometheus metrics over HTTP, on a port of their own.

The index and the streams belong to the event loop and may change at any await. So the HTTP server,
which answers each scrape in a thread, asks the loop for the values and only encodes them itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from threading import Thread
    from wsgiref.simple_server import WSGIServer

    from prometheus_client.metrics_core import Metric

_COLLECT_TIMEOUT = 5.0  # seconds; Prometheus gives a scrape up after 10 by default


class MetricsServer:
    """An `async with` block in which `registry` is served over HTTP at `listen` (host:port).

    The collectors of the registry run on the event loop that enters the block.
    """

    def __init__(self, registry: CollectorRegistry, listen: str) -> None:
        self._registry = registry
        self._host, _, port = listen.rpartition(":")
        self._port = int(port)
        self._server: WSGIServer | None = None
        self._thread: Thread | None = None

    async def __aenter__(self) -> Self:
        """Raises OSError if the address cannot be bound."""
        # The collector has no names: without this option a scrape with ?name[]= would be empty.
        served = CollectorRegistry(support_collectors_without_names=True)
        served.register(_LoopCollector(self._registry, asyncio.get_running_loop()))
        self._server, self._thread = start_http_server(self._port, self._host.strip("[]"), served)
        return self

    @property
    def port(self) -> int:
        """The port in use."""
        return self._server.server_port if self._server else self._port

    async def __aexit__(self, *exc_info: object) -> None:
        if self._server is not None and self._thread is not None:
            # A thread waits for the server to stop, so that the loop can answer its last scrapes.
            await asyncio.to_thread(self._server.shutdown)
            self._server.server_close()
            self._thread.join()


class _LoopCollector(Collector):
    """Collects a registry on the event loop, for the threads of the HTTP server."""

    def __init__(self, registry: CollectorRegistry, loop: asyncio.AbstractEventLoop) -> None:
        self._registry = registry
        self._loop = loop

    def collect(self) -> list[Metric]:
        """Every family. Raises TimeoutError, which fails the scrape, if the loop is too busy."""
        collecting = asyncio.run_coroutine_threadsafe(self._families(), self._loop)
        try:
            return collecting.result(_COLLECT_TIMEOUT)
        except TimeoutError:
            collecting.cancel()
            raise

    async def _families(self) -> list[Metric]:
        families = []
        for family in self._registry.collect():
            families.append(family)
            # Events and calls go first between two families: a scrape of a large fleet must not
            # delay them. Collectors therefore keep no iterator over shared state across a `yield`.
            await asyncio.sleep(0)
        return families
