"""A SUB socket on the event loop: bytes arrive here."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Self

import structlog
import zmq

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvevents.source import Source

_log = structlog.get_logger("kvatlas.kvevents")

_SLICE_SECONDS = 0.0005  # how long events may keep requests waiting
_RECONNECT_FIRST_MS = 100
_RECONNECT_MOST_MS = 10_000


class SubscribeError(OSError):
    """A source's endpoint cannot be bound or connected to."""


class Subscriber:
    """Receives the messages of one source and hands each to `take`, in order of arrival.

    An `async with` block receives. Messages that wait are drained in slices of half a millisecond,
    so that requests are answered in between. ZMQ reconnects by itself, first after 100 ms and then
    ever more slowly up to 10 s. What `high_water_mark` messages cannot hold is lost by ZMQ.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        source: Source,
        take: Callable[[Source, list[bytes]], None],
        high_water_mark: int = 100_000,
        most_bytes: int = 256 * 1024 * 1024,
    ) -> None:
        self._context = context
        self._source = source
        self._take = take
        self._high_water_mark = high_water_mark
        self._most_bytes = most_bytes

    async def __aenter__(self) -> Self:
        """Raises SubscribeError if the endpoint is malformed, taken or not ours to bind."""
        self._socket = self._context.socket(zmq.SUB)
        try:
            self._open()
        except zmq.ZMQError as error:
            self._socket.close(linger=0)
            verb = "bind" if self._source.bind else "connect to"
            raise SubscribeError(f"cannot {verb} {self._source.endpoint}: {error}") from error
        self._loop = asyncio.get_running_loop()
        self._descriptor = int(self._socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._descriptor, self._drain)
        self._next: asyncio.Handle | None = self._loop.call_soon(self._drain)
        _log.info("subscribed", endpoint=self.endpoint, bind=self._source.bind)
        return self

    def _open(self) -> None:
        socket = self._socket
        socket.setsockopt(zmq.RCVHWM, self._high_water_mark)
        socket.setsockopt(zmq.MAXMSGSIZE, self._most_bytes)
        socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_FIRST_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MOST_MS)
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

    def _drain(self) -> None:
        """Take what is there. The descriptor tells of new messages only when all were taken."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        receive = self._socket.recv_multipart
        take, source = self._take, self._source
        deadline = time.perf_counter() + _SLICE_SECONDS
        try:
            while True:
                take(source, receive(zmq.NOBLOCK))
                if time.perf_counter() > deadline:
                    self._next = self._loop.call_soon(self._drain)
                    return
        except zmq.Again:
            return

    async def __aexit__(self, *exc_info: object) -> None:
        self._loop.remove_reader(self._descriptor)
        if self._next is not None:
            self._next.cancel()
        self._socket.close(linger=0)
