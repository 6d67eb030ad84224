"""A SUB socket on the event loop, where bytes arrive."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol, Self

import structlog
import zmq

from kvevents.transport.connections import Connections

if TYPE_CHECKING:
    from kvevents.source import Source

_log = structlog.get_logger("kvatlas.kvevents")

_SLICE_SECONDS = 0.0005  # how long events may keep requests waiting
_RECONNECT_FIRST_MS = 100
_RECONNECT_MAX_MS = 2_000
_RECONNECT_AGAIN_SECONDS = 0.5
_HEARTBEAT_MS = 2_000
_DEAD_AFTER_MS = 6_000
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_FETCH_MESSAGES = 16  # at a time


class SubscribeError(OSError):
    """A source's endpoint can be neither bound nor connected to."""


class MessageHandler(Protocol):
    """Handles a source's messages and connections; `Connections` gives these their numbers."""

    def on_message(self, source: Source, parts: list[bytes], connection: int) -> None:
        """A message has come through `connection`."""
        ...

    def on_connected(self, source: Source, connection: int) -> None:
        """A connection was made; some of its messages may have been handled before this."""
        ...

    def on_disconnected(self, source: Source, connection: int) -> None:
        """A connection was lost; some of its messages may be handled after this."""
        ...


class Subscriber:
    """Receives the messages of one source, in order of arrival, within an `async with` block.

    Messages are handled in slices of half a millisecond, so that requests are answered in between.
    ZMQ reconnects by itself, first after 100 ms and then ever more slowly, up to 2 s; a peer that
    does not answer heartbeats for 6 s is disconnected. Messages that come faster than they are
    handled wait here, then at the publisher, which drops what it cannot hold: a gap in its numbers.

    Args:
        context: where the socket is made.
        source: what to receive.
        handler: is given each message and each change of connections.
        high_water_mark: messages of one connection that may wait here.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        source: Source,
        handler: MessageHandler,
        high_water_mark: int = 1000,
    ) -> None:
        self._context = context
        self._source = source
        self._handler = handler
        self._high_water_mark = high_water_mark
        self._paused = False
        self._live_connections: set[int] = set()
        self._reconnected_at = 0.0
        self._fetched: deque[tuple[list[bytes], int]] = deque()  # messages with their connections

    async def __aenter__(self) -> Self:
        """Raises SubscribeError if the endpoint is malformed, in use or not on this host."""
        self._socket = self._context.socket(zmq.SUB)
        self._connections = Connections(self._socket, bind=self._source.bind)
        try:
            self._open()
        except zmq.ZMQError as error:
            self._close()
            verb = "bind" if self._source.bind else "connect to"
            raise SubscribeError(f"cannot {verb} {self._source.endpoint}: {error}") from error
        self._loop = asyncio.get_running_loop()
        self._descriptors = [
            int(self._socket.getsockopt(zmq.FD)),
            self._connections.file_descriptor,
        ]
        for descriptor in self._descriptors:
            self._loop.add_reader(descriptor, self._drain)
        self._next_drain: asyncio.Handle | None = self._loop.call_soon(self._drain)
        _log.info("subscribed", endpoint=self.endpoint, bind=self._source.bind)
        return self

    def _open(self) -> None:
        socket = self._socket
        socket.setsockopt(zmq.RCVHWM, self._high_water_mark)
        socket.setsockopt(zmq.MAXMSGSIZE, _MAX_MESSAGE_BYTES)
        socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_FIRST_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
        socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _DEAD_AFTER_MS)
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        if "*" in self._source.endpoint or "[" in self._source.endpoint:
            socket.setsockopt(zmq.IPV6, 1)
        socket.subscribe(self._source.topic.encode())
        if self._source.bind:
            socket.bind(self._source.endpoint)
        else:
            socket.connect(self._source.endpoint)

    @property
    def endpoint(self) -> str:
        """The address in use; for a bound port 0 or *, with the port that was chosen."""
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def reconnect(self) -> None:
        """Connect now rather than after ZMQ's back-off; at most every half second."""
        now = time.monotonic()
        if (
            self._live_connections
            or self._source.bind
            or now - self._reconnected_at < _RECONNECT_AGAIN_SECONDS
        ):
            return
        self._reconnected_at = now
        with contextlib.suppress(zmq.ZMQError):  # ZMQ may have given up the endpoint already
            self._socket.disconnect(self._source.endpoint)
        self._socket.connect(self._source.endpoint)

    def pause(self) -> None:
        """Handle nothing until `resume`; messages wait in ZMQ, and then at their publishers."""
        self._paused = True

    def resume(self) -> None:
        """Go on after `pause`."""
        self._paused = False
        self._drain()

    def _drain(self) -> None:
        """Handle the messages that are there.

        ZMQ's descriptor becomes readable only once, so all must be fetched before it is awaited.
        """
        if self._next_drain is not None:
            self._next_drain.cancel()
            self._next_drain = None
        on_message, source, fetched = self._handler.on_message, self._source, self._fetched
        deadline = time.perf_counter() + _SLICE_SECONDS
        while not self._paused:
            while fetched:
                parts, connection = fetched.popleft()
                on_message(source, parts, connection)
                if time.perf_counter() > deadline:
                    self._next_drain = self._loop.call_soon(self._drain)
                    return
            if not self._fetch_some():
                return

    def _fetch_some(self) -> bool:
        """Fetch some messages, then notice changes of connections; False if there were neither."""
        fetched: list[tuple[list[bytes], int]] = []  # messages with their descriptors
        try:
            while len(fetched) < _FETCH_MESSAGES:
                fetched.append(self._fetch())
        except zmq.Again:
            pass
        connections, handler, source = self._connections, self._handler, self._source
        if not fetched:
            connections.on_drained()
        for connection in connections.take_made(drained=not fetched):
            self._live_connections.add(connection)
            handler.on_connected(source, connection)
        more = connections.watch()
        self._fetched.extend(
            (parts, connections.number(descriptor)) for parts, descriptor in fetched
        )
        for connection in connections.take_lost():
            self._live_connections.discard(connection)
            handler.on_disconnected(source, connection)
        return more or bool(fetched)

    def _fetch(self) -> tuple[list[bytes], int]:
        """One message and its descriptor. Part by part is faster than `recv_multipart`."""
        receive = self._socket.recv
        part = receive(zmq.NOBLOCK, copy=False)
        parts = [part.bytes]
        while part.more:
            part = receive(zmq.NOBLOCK, copy=False)
            parts.append(part.bytes)
        return parts, _descriptor_of(part)

    def _close(self) -> None:
        self._socket.disable_monitor()
        self._connections.close()
        self._socket.close(linger=0)

    async def __aexit__(self, *exc_info: object) -> None:
        for descriptor in self._descriptors:
            self._loop.remove_reader(descriptor)
        if self._next_drain is not None:
            self._next_drain.cancel()
        self._close()


def _descriptor_of(part: zmq.Frame) -> int:
    try:
        return int(part.get(zmq.SRCFD))
    except zmq.ZMQError:
        return -1
