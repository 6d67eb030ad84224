"""The metrics server reads the service's state on the event loop that owns it."""

from __future__ import annotations

import asyncio
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from support.deadlines import DEADLINE_SECONDS

from service.metrics import MetricsServer, server


class Noting(Collector):
    """Two families, and the threads that asked for them."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def collect(self) -> Iterator[Metric]:
        for name in ("first", "second"):
            self.threads.append(threading.get_ident())
            yield GaugeMetricFamily(name, "A value.", 1)


def scrape(port: int, query: str = "") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics{query}") as answer:
        return str(answer.read().decode())


async def test_collectors_run_in_the_thread_of_the_event_loop() -> None:
    noting = Noting()
    registry = CollectorRegistry()
    registry.register(noting)
    async with MetricsServer(registry, "127.0.0.1:0") as served:
        noting.threads.clear()
        page = await asyncio.to_thread(scrape, served.port)
        assert "first 1.0" in page
        assert "second 1.0" in page
        assert noting.threads == [threading.get_ident()] * 2
        one = await asyncio.to_thread(scrape, served.port, "?name[]=first")
        assert "first 1.0" in one
        assert "second" not in one


async def test_a_scrape_fails_while_the_event_loop_is_too_busy(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server, "_COLLECT_TIMEOUT", 0.05)
    registry = CollectorRegistry()
    registry.register(Noting())
    async with MetricsServer(registry, "127.0.0.1:0") as served:
        with ThreadPoolExecutor() as pool:
            scraping = pool.submit(scrape, served.port)
            while not scraping.done():
                time.sleep(0.01)  # noqa: ASYNC251 - the loop is blocked until the scrape is over
        with pytest.raises(urllib.error.HTTPError, match="500") as failed:
            scraping.result()
        failed.value.close()
        monkeypatch.setattr(server, "_COLLECT_TIMEOUT", DEADLINE_SECONDS)
        assert "first 1.0" in await asyncio.to_thread(scrape, served.port)
    assert "TimeoutError" in capfd.readouterr().err
