"""A SUB socket on the event loop, where bytes arrive."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

import structlog
import zmq

from kvevents.transport import descriptors
from kvevents.transport.connections import Connections
from kvevents.transport.curve import secure
from kvevents.transport.inbox import Inbox
from kvevents.transport.message_reader import MessageReader, ReceivedMessage

if TYPE_CHECKING:
    from kvevents.source import Source

_log = structlog.get_logger("kvatlas.kvevents")

_SLICE_SECONDS = 0.0005  # how long events may keep requests waiting
_FETCH_SECONDS = 0.0002  # besides, for fetching them
_RECONNECT_FIRST_MS = 100
_RECONNECT_MAX_MS = 2_000
_RECONNECT_AGAIN_SECONDS = 0.5
_HEARTBEAT_MS = 2_000
# While a connection's messages wait in ZMQ, it does not read the peer's heartbeats either: this
# must be longer than any backlog. TCP notices a dead host sooner.
_DEAD_AFTER_MS = 30_000
_HANDSHAKE_MS = 10_000
_KEEPALIVE_IDLE_SECONDS, _KEEPALIVE_PROBE_SECONDS, _KEEPALIVE_PROBES = 3, 1, 3
_QUEUED_IN_ZMQ = 16  # messages of one connection
_MESSAGES_AHEAD = 8  # so many of the largest may have come, and not be here
_FETCH_MESSAGES = 16  # at a time


class SocketLimits(NamedTuple):
    """What one source's socket may take."""

    queue_messages: int = 10_000
    """Messages that may wait to be handled."""
    queue_bytes: int = 64 * 1024**2
    """Bytes that these may occupy."""
    message_bytes: int = 8 * 1024**2
    """Size of a message. ZMQ closes the connection of a peer that sends a larger one."""
    connections: int = 4096
    """Connections to a bound endpoint."""


_DEFAULT_LIMITS = SocketLimits()


class SubscribeError(OSError):
    """A source's endpoint can be neither bound nor connected to."""


class MessageHandler(Protocol):
    """Handles a source's messages and connections; `Connections` gives these their numbers."""

    def on_message(self, source: Source, parts: list[bytes], connection: int) -> None:
        """A message has come through `connection`."""
        ...

    @property
    def is_busy(self) -> bool:
        """Whether a message was begun that must be finished before another one is handled."""
        ...

    def on_connected(self, source: Source, connection: int) -> None:
        """A connection was made; some of its messages may have been handled before this."""
        ...

    def on_disconnected(self, source: Source, connection: int) -> None:
        """A connection was lost; some of its messages may be handled after this."""
        ...

    def on_connections_refused(self, source: Source, reason: str, count: int) -> None:
        """Connections to a bound endpoint were closed."""
        ...


class Subscriber:
    """Receives the messages of one source, in order of arrival, within an `async with` block.

    Messages are handled in slices of half a millisecond, so that requests are answered in between.
    ZMQ reconnects by itself, first after 100 ms and then ever more slowly, up to 2 s. A peer whose
    host does not answer for 6 s, or that does not answer heartbeats for 30 s, is disconnected.
    Messages that come faster than they are handled wait here, within limits, then in the network,
    then at the publisher, which drops what it cannot hold: a gap in its numbers.

    Args:
        context: where the socket is made.
        source: what to receive.
        handler: is given each message and each change of connections.
        limits: what the socket may take.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        source: Source,
        handler: MessageHandler,
        limits: SocketLimits = _DEFAULT_LIMITS,
    ) -> None:
        self._context = context
        self._source = source
        self._handler = handler
        self._limits = limits
        self._paused = False
        self._live_connections: set[int] = set()
        self._reconnected_at = 0.0
        self._has_fetched_all = False
        self._inbox = Inbox(limits.queue_messages, limits.queue_bytes)

    async def __aenter__(self) -> Self:
        """Raises SubscribeError if the endpoint is malformed, in use or not on this host.

        Likewise if file descriptors are scarce.
        """
        if why := descriptors.scarcity():
            raise SubscribeError(f"cannot listen to {self._source.endpoint}: {why}")
        with contextlib.ExitStack() as stack:
            try:
                self._socket = self._context.socket(zmq.SUB)
                stack.callback(self._socket.close, linger=0)
                self._reader = MessageReader(self._socket)
                self._connections = Connections(
                    self._socket,
                    bind=self._source.bind,
                    most=self._limits.connections,
                    allowed_peers=self._source.allowed_peers,
                )
                stack.callback(self._connections.close)
                stack.callback(self._socket.disable_monitor)
                self._open()
            except (zmq.ZMQError, ValueError) as error:
                verb = "bind" if self._source.bind else "connect to"
                raise SubscribeError(f"cannot {verb} {self._source.endpoint}: {error}") from error
            stack.pop_all()
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
        socket.setsockopt(zmq.RCVHWM, min(_QUEUED_IN_ZMQ, self._limits.queue_messages))
        socket.setsockopt(zmq.MAXMSGSIZE, self._limits.message_bytes)
        socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
        socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_FIRST_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
        socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _DEAD_AFTER_MS)
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, _KEEPALIVE_IDLE_SECONDS)
        socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, _KEEPALIVE_PROBE_SECONDS)
        socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, _KEEPALIVE_PROBES)
        if "*" in self._source.endpoint or "[" in self._source.endpoint:
            socket.setsockopt(zmq.IPV6, 1)
        socket.subscribe(self._source.topic.encode())
        if self._source.curve is not None:
            secure(socket, self._source.curve, bind=self._source.bind)
        if self._source.bind:
            socket.bind(self._source.endpoint)
        else:
            socket.connect(self._source.endpoint)

    @property
    def endpoint(self) -> str:
        """The address in use; for a bound port 0 or *, with the port that was chosen."""
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def close_overfull(self) -> None:
        """Close connections that send on and on without ending a message."""
        if self._source.bind and self._source.curve is None:  # encrypted parts are longer
            self._connections.close_overfull(_MESSAGES_AHEAD * self._limits.message_bytes)
            self._drain()

    @property
    def is_drained(self) -> bool:
        """Whether all that has come was handled."""
        return self._has_fetched_all and not self._inbox

    def peer_of(self, connection: int) -> str:
        """The IP address of a peer that has connected; empty if it is not known."""
        return self._connections.peers.get(connection, "")

    def reconnect(self) -> None:
        """Connect now, not after ZMQ's back-off, if nothing is up; at most every half second."""
        now = time.monotonic()
        if self._source.bind or now - self._reconnected_at < _RECONNECT_AGAIN_SECONDS:
            return
        if self._next_drain is None:
            self._next_drain = self._loop.call_soon(self._drain)
        if self._connections.watch() or self._live_connections:
            return
        self._reconnected_at = now
        with contextlib.suppress(zmq.ZMQError):  # ZMQ may have given up the endpoint already
            self._socket.disconnect(self._source.endpoint)
        self._socket.connect(self._source.endpoint)

    def pause(self) -> None:
        """Handle nothing until `resume`; messages wait."""
        self._paused = True

    def resume(self) -> None:
        """Go on after `pause`."""
        self._paused = False
        self._drain()

    def _drain(self) -> None:
        """Fetch and handle the messages that are there, for the time of a slice.

        ZMQ's descriptor becomes readable only once, so all must be fetched before it is awaited.
        Fetching comes first: ZMQ takes a peer for dead if its messages are left there too long.
        """
        if self._next_drain is not None:
            self._next_drain.cancel()
            self._next_drain = None
        inbox, handler = self._inbox, self._handler
        is_empty = self._fetch(time.perf_counter() + _FETCH_SECONDS)
        self._has_fetched_all = is_empty
        deadline = time.perf_counter() + _SLICE_SECONDS
        while inbox and not (self._paused or handler.is_busy or time.perf_counter() > deadline):
            self._handle_next()
        can_go_on = not inbox.is_full if self._paused else bool(inbox)
        if can_go_on or not (is_empty or inbox.is_full):
            self._next_drain = self._loop.call_soon(self._drain)

    def _handle_next(self) -> None:
        item = self._inbox.pop()
        if not isinstance(item, int):
            self._handler.on_message(self._source, item.parts, item.connection)
        elif item in self._live_connections:
            self._handler.on_connected(self._source, item)

    def _fetch(self, deadline: float) -> bool:
        """Fetch messages, and notice changes of connections; True if there is nothing more."""
        while True:
            if self._inbox.is_full:
                self._notice_connections([], drained=False)
                return False
            fetched: list[ReceivedMessage] = []
            is_drained = False
            try:
                while len(fetched) < _FETCH_MESSAGES and time.perf_counter() < deadline:
                    message = self._reader.receive()
                    if message is not None:
                        fetched.append(message)
            except zmq.Again:
                is_drained = not fetched
            if is_drained:
                self._connections.on_drained()
            if not self._notice_connections(fetched, drained=is_drained) and is_drained:
                return True
            if time.perf_counter() > deadline:
                return False

    def _notice_connections(self, fetched: list[ReceivedMessage], *, drained: bool) -> bool:
        """Add to the inbox what has come; returns whether there are more new connections.

        drained: whether no message waits in ZMQ.
        """
        connections, handler, source = self._connections, self._handler, self._source
        for connection in connections.take_made(drained=drained):
            self._live_connections.add(connection)
            self._inbox.add_connection(connection)
        more = connections.watch()
        for parts, descriptor in fetched:
            connection = connections.number(descriptor)
            if not connections.is_refused(connection):
                connections.count_taken(connection, parts)
                self._inbox.add_message(parts, connection)
        for reason, count in connections.take_refused().items():
            handler.on_connections_refused(source, reason, count)
        for connection in connections.take_lost():
            self._live_connections.discard(connection)
            handler.on_disconnected(source, connection)
        return more

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
