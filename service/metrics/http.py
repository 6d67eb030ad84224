"""A small HTTP server: `/metrics` and `/healthz`, within bounds, one request a connection.

prometheus_client's own server starts a thread for each connection and keeps it for as long as the
connection is open. A server of web applications (uvicorn, hypercorn) would be much for two paths.
So this one reads requests, and prometheus_client's WSGI application answers those for `/metrics`.
"""

from __future__ import annotations

import asyncio
import io
import socket
import sys
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPException, parse_headers
from typing import TYPE_CHECKING, NamedTuple

import structlog
from prometheus_client import Counter, make_wsgi_app

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Callable, Coroutine

    from prometheus_client import CollectorRegistry

_MAX_HEAD = 8192  # bytes of a request before its body; it has none
_METHODS = {"GET", "HEAD"}


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket, on IPv4 and IPv6 where the host says anywhere. Raises OSError."""
    if host in {"0.0.0.0", "::"} and socket.has_dualstack_ipv6():  # noqa: S104 - as it says
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    family, _, _, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return socket.create_server(address[:2], family=family)


class _Answer(NamedTuple):
    status: HTTPStatus
    headers: list[tuple[str, str]]
    body: bytes


class _RequestError(Exception):
    """A request that is not answered with what it asks for."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class HttpServer:
    """Answers scrapes and probes."""

    def __init__(
        self,
        registry: CollectorRegistry,
        connections: int,
        idle_seconds: float,
        is_serving: Callable[[], bool],
    ) -> None:
        """Take the metrics, and the bounds: see `MetricsServer`."""
        self._application = make_wsgi_app(registry)
        self._connections = connections
        self._idle_seconds = idle_seconds
        self._is_serving = is_serving
        self._open = 0
        self._refused = Counter(
            "kvatlas_metrics_requests_refused",
            "Connections and requests to the metrics that were not answered, by reason.",
            ["reason"],
            registry=registry,
        )

    async def serve(
        self,
        listening: socket.socket,
        on_start: Callable[[], None],
        until: Coroutine[object, object, object],
    ) -> None:
        """Accept connections until `until` is over."""
        server = await asyncio.start_server(self._connected, sock=listening, limit=_MAX_HEAD)
        async with server:
            on_start()
            await until

    async def _connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._open += 1
        try:
            if self._open > self._connections:
                self._refused.labels("connections").inc()
                return
            async with asyncio.timeout(self._idle_seconds):
                method, answer = await self._answer(reader)
                writer.write(_encoded(method, answer))
                await writer.drain()
        except TimeoutError:
            self._refused.labels("idle").inc()
        except (ConnectionError, asyncio.IncompleteReadError):
            self._refused.labels("disconnected").inc()
        finally:
            self._open -= 1
            await _close(writer)

    async def _answer(self, reader: StreamReader) -> tuple[str, _Answer]:
        method = "GET"
        try:
            method, target, environment = await _request(reader)
            path, _, environment["QUERY_STRING"] = target.partition("?")
            if path == "/healthz":
                return method, self._health()
            if path == "/metrics":
                return method, self._metrics(environment)
            raise _RequestError(HTTPStatus.NOT_FOUND, "path")
        except _RequestError as error:
            self._refused.labels(error.reason).inc()
            return method, _plain(error.status, error.status.phrase)

    def _health(self) -> _Answer:
        if self._is_serving():
            return _plain(HTTPStatus.OK, "serving")
        return _plain(HTTPStatus.SERVICE_UNAVAILABLE, "not serving")

    def _metrics(self, environment: dict[str, str]) -> _Answer:
        headers: list[tuple[str, str]] = []
        try:
            body = self._application(environment, lambda _, given: headers.extend(given))
        except Exception:
            log = structlog.wrap_logger(structlog.PrintLogger(sys.stderr))
            log.warning("scrape_failed", exc_info=True)
            raise _RequestError(HTTPStatus.INTERNAL_SERVER_ERROR, "failed") from None
        return _Answer(HTTPStatus.OK, headers, b"".join(body))


async def _request(reader: StreamReader) -> tuple[str, str, dict[str, str]]:
    """Read a request: its method, its target, and what WSGI wants to know of it."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        raise _RequestError(status, "head") from None
    line, _, fields = head.partition(b"\r\n")
    try:
        method, target, _ = line.decode("ascii").split(" ")
        headers = parse_headers(io.BytesIO(fields))
    except (ValueError, HTTPException):
        raise _RequestError(HTTPStatus.BAD_REQUEST, "malformed") from None
    if method not in _METHODS:
        raise _RequestError(HTTPStatus.METHOD_NOT_ALLOWED, "method")
    environment = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/metrics",
        "HTTP_ACCEPT": headers.get("accept", ""),
        "HTTP_ACCEPT_ENCODING": headers.get("accept-encoding", ""),
    }
    return method, target, environment


def _plain(status: HTTPStatus, text: str) -> _Answer:
    return _Answer(status, [("Content-Type", "text/plain; charset=utf-8")], f"{text}\n".encode())


def _encoded(method: str, answer: _Answer) -> bytes:
    headers = [
        *answer.headers,
        ("Content-Length", str(len(answer.body))),
        ("Connection", "close"),
    ]
    if answer.status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append(("Allow", ", ".join(sorted(_METHODS))))
    lines = [f"HTTP/1.1 {answer.status.value} {answer.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return head if method == "HEAD" else head + answer.body


async def _close(writer: StreamWriter) -> None:
    """Close a connection; drop what its other end does not read."""
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(1):
            await writer.wait_closed()
            return
    writer.transport.abort()
