"""A collector of spans: it decodes what is sent over real HTTP, or misbehaves as told."""

from __future__ import annotations

import asyncio
import gzip
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from support.deadlines import DEADLINE_SECONDS

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from email.message import Message

    from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collected:
    """What a collector has got."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.status = 200
        self.rejects = 0
        """Spans of each request that it says it rejects."""
        self.hangs = threading.Event()
        """While it is set, requests are not answered."""
        self.released = threading.Event()
        self.bodies: list[bytes] = []
        """What was sent, decompressed."""
        self.headers: list[Message] = []
        self.paths: list[str] = []
        self.requests = 0
        self.on_request: Callable[[], object] = _nothing

    @property
    def spans(self) -> list[Span]:
        """The spans that it has taken, in the order in which they ended."""
        return [
            span
            for body in list(self.bodies)
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in of_resource.scope_spans
            for span in scope.spans
        ]

    def resource(self) -> dict[str, str]:
        """The resource that the first spans come from."""
        (of_resource,) = ExportTraceServiceRequest.FromString(self.bodies[0]).resource_spans
        return {each.key: each.value.string_value for each in of_resource.resource.attributes}

    async def until(self, holds: Callable[[Collected], bool]) -> None:
        """Wait until `holds` is true."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        self.on_request = lambda: loop.call_soon_threadsafe(changed.set)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while not holds(self):
                    await changed.wait()
                    changed.clear()
        finally:
            self.on_request = _nothing

    async def named(self, name: str, count: int = 1) -> list[Span]:
        """Wait for so many spans of this name; return them."""
        await self.until(lambda got: sum(span.name == name for span in got.spans) >= count)
        return [span for span in self.spans if span.name == name]


def _nothing() -> None:
    """Nobody waits."""


def attributes(span: Span) -> dict[str, Any]:
    """The attributes of a span."""
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value")
        for each in span.attributes
    }


@contextmanager
def otlp_collector(port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Collected]:
    """A collector at a local port, a free one if none is given."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collected.requests += 1
            collected.on_request()
            if collected.hangs.is_set():
                collected.released.wait()
                return
            if collected.status == 200:  # it has the spans before it says so
                assert self.headers["content-encoding"] == "gzip"
                collected.headers.append(self.headers)
                collected.paths.append(self.path)
                collected.bodies.append(gzip.decompress(body))
                collected.on_request()
            answer = ExportTraceServiceResponse()
            answer.partial_success.rejected_spans = collected.rejects
            encoded = answer.SerializeToString()
            self.send_response(collected.status)
            self.send_header("content-length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    collected = Collected(f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield collected
    finally:
        collected.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
