"""A listener with a service for tests of transports, which says what becomes of its calls."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import grpc

from service.config import load
from service.listening import GrpcServer, ListenerSettings
from support.deadlines import DEADLINE_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

LIMIT = 9_000_000
"""Bytes of the largest request."""
ARRIVING = 36_000_000
"""Bytes of all requests that have not arrived."""
DETAILS = b"\x00\xffdetails"
NAME = "test.Echo"


class Echo:
    """Its methods, and what has happened in them.

    Attributes:
        received: metadata of the last call of `Unary`.
        seen: how often a call began, ended, or was cancelled, by "<method> <what>".
        sent: messages of `Flood` that were taken.
    """

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.sent = 0
        self.go_on = asyncio.Event()
        self.received: list[tuple[str, str | bytes]] = []
        self.time_remaining: float | None = None
        self._changed = asyncio.Event()

    def note(self, what: str) -> None:
        """Say that something has happened."""
        self.seen[what] += 1
        self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something is true of what has happened."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    async def unary(self, request: bytes, context: Any) -> bytes:
        """The request."""
        self.received = list(context.invocation_metadata())
        self.time_remaining = context.time_remaining()
        return request

    async def metadata(self, request: bytes, context: Any) -> bytes:
        """The request, with metadata before and after it."""
        await context.send_initial_metadata((("first", "1"), ("first-bin", b"\x00\xff")))
        context.set_trailing_metadata((("last", "2"), ("last-bin", b"\xfe")))
        return request

    async def fail(self, request: bytes, context: Any) -> bytes:
        """An error with the request as its text, and details."""
        trailers = (("grpc-status-details-bin", DETAILS),)
        await context.abort(grpc.StatusCode.NOT_FOUND, request.decode(), trailers)
        raise AssertionError

    async def crash(self, request: bytes, context: Any) -> bytes:
        """An error that nobody expects."""
        raise ValueError("unexpected")

    async def wait(self, request: bytes, context: Any) -> bytes:
        """The request, once `go_on` is set."""
        self.note("Wait began")
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.note("Wait cancelled")
            raise
        return request

    async def flood(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        """As many messages of 10,000 bytes as the request says."""
        try:
            for number in range(int(request)):
                yield number.to_bytes(4) + bytes(9_996)
                self.sent += 1
                self.note("Flood sent")
        except (asyncio.CancelledError, GeneratorExit):
            self.note("Flood cancelled")
            raise

    async def echo(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Each request."""
        self.note("Echo began")
        try:
            async for request in requests:
                yield request
        except (asyncio.CancelledError, GeneratorExit):
            self.note("Echo cancelled")
            raise
        self.note("Echo ended")

    async def later(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Each request, from when `go_on` is set."""
        self.note("Later began")
        await self.go_on.wait()
        async for request in requests:
            yield request

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """All methods, for a server."""
        unary = (self.unary, self.metadata, self.fail, self.crash, self.wait)
        both: Any = (self.echo, self.later)
        flood: Any = self.flood
        return {
            **{
                each.__name__.capitalize(): grpc.unary_unary_rpc_method_handler(each)
                for each in unary
            },
            "Flood": grpc.unary_stream_rpc_method_handler(flood),
            **{
                each.__name__.capitalize(): grpc.stream_stream_rpc_method_handler(each)
                for each in both
            },
        }


class EchoServer:
    """A running listener with the service."""

    def __init__(
        self, server: GrpcServer, echo: Echo, refused: Counter[str], closed: Counter[str]
    ) -> None:
        self.server = server
        self.echo = echo
        self.refused = refused
        """Reasons of refused calls, with how often."""
        self.closed = closed
        """Likewise of refused connections."""

    @property
    def is_native(self) -> bool:
        """Whether it is not gRPC's core that listens."""
        return self.server._settings.bounds.transport == "http2"

    @property
    def address(self) -> str:
        return self.server.addresses[0]

    def channel(self, *options: tuple[str, Any]) -> grpc.aio.Channel:
        """A channel with a connection of its own."""
        own = ("grpc.use_local_subchannel_pool", 1)
        large = ("grpc.max_receive_message_length", -1)
        return grpc.aio.insecure_channel(self.address, options=[own, large, *options])


@asynccontextmanager
async def echo_server(transport: str, **settings: Any) -> AsyncIterator[EchoServer]:
    """A listener on that transport, with settings of the section `grpc`."""
    section = {"listen": ["127.0.0.1:0"], "drain_seconds": 0.1, "transport": transport, **settings}
    grpc_section = load(None, {"grpc": section}).grpc
    echo, refused, closed = Echo(), Counter[str](), Counter[str]()

    def on_refused(reason: str) -> None:
        refused[reason] += 1

    def on_closed(reason: str) -> None:
        closed[reason] += 1

    server = GrpcServer(
        ListenerSettings("grpc", grpc_section, grpc_section, LIMIT, ARRIVING, on_refused, on_closed)
    )
    server.add_registered_method_handlers(NAME, echo.handlers())
    async with server:
        server.become_ready()
        yield EchoServer(server, echo, refused, closed)


async def until_grpc_is_idle() -> None:
    """Wait until gRPC's core has handled every event that it had until now.

    It hands its events over in order, also those of an event loop that is closed by then: they
    would fail the next test. So one more call is made, which fails at once.
    """
    async with grpc.aio.insecure_channel("ipv4:127.0.0.1:1") as channel:
        with suppress(grpc.aio.AioRpcError):
            call: Any = channel.unary_unary(f"/{NAME}/Unary")
            await call(b"")
