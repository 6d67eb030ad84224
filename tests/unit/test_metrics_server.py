"""The metrics server reads the service's state on the event loop that owns it."""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
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


def scrape(port: int, query: str = "", host: str = "127.0.0.1") -> str:
    with urllib.request.urlopen(f"http://{host}:{port}/metrics{query}") as answer:
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


async def test_a_scrape_says_how_long_it_waited_for_the_event_loop() -> None:
    async with MetricsServer(CollectorRegistry(), "127.0.0.1:0") as served:
        with ThreadPoolExecutor() as pool:
            scraping = pool.submit(scrape, served.port)
            time.sleep(0.2)  # noqa: ASYNC251 - this is the lag
            page = await asyncio.wrap_future(scraping)
    (lag,) = re.findall(r"^kvatlas_loop_lag_seconds (\S+)$", page, re.MULTILINE)
    assert 0 < float(lag) < DEADLINE_SECONDS


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this host has no IPv6")
@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
async def test_metrics_that_are_served_anywhere_are_served_on_ipv4_and_ipv6(listen: str) -> None:
    async with MetricsServer(CollectorRegistry(), listen) as served:
        for host in ("127.0.0.1", "[::1]"):
            assert "kvatlas_loop_lag_seconds" in await asyncio.to_thread(
                scrape, served.port, host=host
            )


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


def exchange(port: int, request: bytes) -> bytes:
    """What the server answers to the bytes of a request, until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS) as connection:
        connection.sendall(request)
        answer = b""
        while some := connection.recv(65_536):
            answer += some
        return answer


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /metrics HTTP/1.1", "200"),
        ("HEAD /metrics HTTP/1.1", "200"),
        ("GET /healthz HTTP/1.1", "200"),
        ("GET / HTTP/1.1", "404"),
        ("GET /metrics/ HTTP/1.1", "404"),
        ("GET /debug/../metrics HTTP/1.1", "404"),
        ("POST /metrics HTTP/1.1", "405"),
        ("OPTIONS /metrics HTTP/1.1", "405"),
        ("GET /metrics", "400"),
        ("\x16\x03\x01", "400"),
        ("GET /metrics?" + "x" * 9000 + " HTTP/1.1", "431"),
    ],
)
async def test_only_scrapes_and_probes_are_answered(request_line: str, status: str) -> None:
    registry = CollectorRegistry()
    registry.register(Noting())
    async with MetricsServer(registry, "127.0.0.1:0") as served:
        request = f"{request_line}\r\nHost: x\r\n\r\n".encode()
        head, _, body = (await asyncio.to_thread(exchange, served.port, request)).partition(
            b"\r\n\r\n"
        )
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        assert (b"first 1.0" in body) == (request_line == "GET /metrics HTTP/1.1")
        page = await asyncio.to_thread(scrape, served.port)
        assert ("kvatlas_metrics_requests_refused_total{" in page) == (status != "200")


async def test_the_health_is_that_of_the_service() -> None:
    serving = False
    async with MetricsServer(
        CollectorRegistry(), "127.0.0.1:0", is_serving=lambda: serving
    ) as served:
        request = b"GET /healthz HTTP/1.1\r\n\r\n"
        assert b" 503 " in await asyncio.to_thread(exchange, served.port, request)
        serving = True
        assert b" 200 " in await asyncio.to_thread(exchange, served.port, request)


async def test_connections_that_send_nothing_are_closed_and_keep_no_thread() -> None:
    registry = CollectorRegistry()
    registry.register(Noting())
    async with MetricsServer(registry, "127.0.0.1:0", connections=400, idle_seconds=0.5) as served:
        threads = threading.active_count()
        half_open = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(300)]
        assert "first 1.0" in await asyncio.to_thread(scrape, served.port)
        assert threading.active_count() <= threads + 1  # the one of this scrape
        for connection in half_open:
            connection.settimeout(DEADLINE_SECONDS)
            assert await asyncio.to_thread(connection.recv, 1) == b""
            connection.close()
        assert 'refused_total{reason="idle"} 300.0' in await asyncio.to_thread(scrape, served.port)


async def test_connections_beyond_the_limit_are_closed_at_once() -> None:
    registry = CollectorRegistry()
    async with MetricsServer(registry, "127.0.0.1:0", connections=2) as served:
        first, second, third = (
            socket.create_connection(("127.0.0.1", served.port)) for _ in range(3)
        )
        third.settimeout(DEADLINE_SECONDS)
        assert await asyncio.to_thread(third.recv, 1) == b""
        for connection in (first, second, third):
            connection.close()


class Changing(Collector):
    """Reads a dictionary that the event loop changes, as collectors read the service's state."""

    def __init__(self) -> None:
        self.state: dict[int, int] = {}

    def collect(self) -> Iterator[Metric]:
        for name in ("first", "second"):
            family = GaugeMetricFamily(name, "A value.", labels=["key"])
            for key in self.state:
                family.add_metric([str(key)], 1)
            yield family


async def test_every_scrape_succeeds_while_the_state_changes() -> None:
    changing, registry = Changing(), CollectorRegistry()
    registry.register(changing)
    async with MetricsServer(registry, "127.0.0.1:0") as served:
        with ThreadPoolExecutor() as pool:
            scraping = [pool.submit(scrape, served.port) for _ in range(20)]
            for number in itertools.count():
                changing.state[number] = 1
                changing.state.pop(number - 500, None)
                await asyncio.sleep(0)
                if all(one.done() for one in scraping):
                    break
        assert all("second" in one.result() for one in scraping)


async def test_an_address_that_is_taken_is_an_error_at_the_start() -> None:
    async with MetricsServer(CollectorRegistry(), "127.0.0.1:0") as served:
        with pytest.raises(OSError, match="in use"):
            async with MetricsServer(CollectorRegistry(), f"127.0.0.1:{served.port}"):
                pass
