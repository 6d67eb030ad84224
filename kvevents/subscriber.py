"""A SUB socket on the event loop: bytes arrive here."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol, Self

import structlog
import zmq
from zmq.utils.monitor import parse_monitor_message

if TYPE_CHECKING:
    from kvevents.source import Source

_log = structlog.get_logger("kvatlas.kvevents")

_SLICE_SECONDS = 0.0005  # how long events may keep requests waiting
_RECONNECT_FIRST_MS = 100
_RECONNECT_MOST_MS = 10_000
_HEARTBEAT_MS = 2_000
_DEAD_AFTER_MS = 6_000
_MOST_BYTES = 64 * 1024 * 1024  # of one message
_SETTLE_SECONDS = 1.0  # by when a lost connection is believed though frames keep coming
_WATCHED = zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.DISCONNECTED


class SubscribeError(OSError):
    """A source's endpoint cannot be bound or connected to."""


class Listener(Protocol):
    """Who is told of a source's messages and connections."""

    def take(self, source: Source, parts: list[bytes]) -> None:
        """A message has come."""
        ...

    def connected(self, source: Source) -> None:
        """A connection was made."""
        ...

    def disconnected(self, source: Source) -> None:
        """A connection was lost; all that came through it has been handed over."""
        ...


class Subscriber:
    """Receives the messages of one source and tells `listener` of each, in order of arrival.

    An `async with` block receives. Messages that wait are drained in slices of half a millisecond,
    so that requests are answered in between. ZMQ reconnects by itself, first after 100 ms and then
    ever more slowly up to 10 s; a peer that does not answer heartbeats for 6 s is disconnected.
    Memory is bounded by `high_water_mark` messages for each connection: what comes faster waits at
    the publisher, which drops what it cannot hold, and so leaves a gap in its numbers.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        source: Source,
        listener: Listener,
        high_water_mark: int = 1000,
    ) -> None:
        self._context = context
        self._source = source
        self._listener = listener
        self._high_water_mark = high_water_mark
        self._paused = False
        self._bereft = False  # a connection was lost, and none was made since
        self._links: deque[tuple[int, float]] = deque()

    async def __aenter__(self) -> Self:
        """Raises SubscribeError if the endpoint is malformed, taken or not ours to bind."""
        self._socket = self._context.socket(zmq.SUB)
        self._monitor = self._socket.get_monitor_socket(_WATCHED)
        try:
            self._open()
        except zmq.ZMQError as error:
            self._close()
            verb = "bind" if self._source.bind else "connect to"
            raise SubscribeError(f"cannot {verb} {self._source.endpoint}: {error}") from error
        self._loop = asyncio.get_running_loop()
        self._descriptors = [int(s.getsockopt(zmq.FD)) for s in (self._socket, self._monitor)]
        for descriptor in self._descriptors:
            self._loop.add_reader(descriptor, self._drain)
        self._next: asyncio.Handle | None = self._loop.call_soon(self._drain)
        _log.info("subscribed", endpoint=self.endpoint, bind=self._source.bind)
        return self

    def _open(self) -> None:
        socket = self._socket
        socket.setsockopt(zmq.RCVHWM, self._high_water_mark)
        socket.setsockopt(zmq.MAXMSGSIZE, _MOST_BYTES)
        socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_FIRST_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MOST_MS)
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
        """The address in use; for a bound port 0 or * the one that was chosen."""
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def pause(self) -> None:
        """Take nothing until `resume`; what comes waits in ZMQ, and then at its publishers."""
        self._paused = True

    def resume(self) -> None:
        """Go on after `pause`."""
        self._paused = False
        self._drain()

    def _drain(self) -> None:
        """Take what is there. The descriptor tells of new messages only when all were taken."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._paused:
            return
        self._watch()
        receive = self._socket.recv_multipart
        take, source = self._listener.take, self._source
        deadline = time.perf_counter() + _SLICE_SECONDS
        try:
            while True:
                parts = receive(zmq.NOBLOCK)
                if self._bereft:
                    self._watch()  # a connection is noted before its first message comes
                take(source, parts)
                if time.perf_counter() > deadline:
                    self._next = self._loop.call_soon(self._drain)
                    return
        except zmq.Again:
            self._settle()

    def _watch(self) -> None:
        """Note connections made, before their messages are taken, and lost, after that."""
        now = time.perf_counter()
        try:
            while True:
                event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))["event"]
                self._links.append((event, now + _SETTLE_SECONDS))
        except zmq.Again:
            pass
        if self._links and (self._links[0][0] != zmq.Event.DISCONNECTED or now > self._links[0][1]):
            self._settle()

    def _settle(self) -> None:
        """Tell of the connections noted; what was lost with them has been taken."""
        while self._links:
            event, _ = self._links.popleft()
            self._bereft = event == zmq.Event.DISCONNECTED
            if self._bereft:
                self._listener.disconnected(self._source)
            elif event == zmq.Event.HANDSHAKE_SUCCEEDED:
                self._listener.connected(self._source)

    def _close(self) -> None:
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)

    async def __aexit__(self, *exc_info: object) -> None:
        for descriptor in self._descriptors:
            self._loop.remove_reader(descriptor)
        if self._next is not None:
            self._next.cancel()
        self._close()
