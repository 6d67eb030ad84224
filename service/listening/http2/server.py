"""A listener that speaks gRPC over HTTP/2 in the event loop of the service."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from service.listening.http2.bodies import Bodies, Requests
from service.listening.http2.connection import Connection, Owner
from service.listening.http2.turns import Turns

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Hashable

    from service.accepting import Connections
    from service.listening.http2.lifetime import Bounds
    from service.listening.native.runner import CallRunner

_CLOSE_SECONDS = 1.0  # for clients to confirm that they make no further calls; to send the rest


class Http2Server:
    """Answers over the connections that are made to it.

    Args:
        made: where connections come from.
        calls: answer the requests.
        bounds: of each connection.
        body_bytes: of all requests that are not whole or not read.
        connections: how many may be open at one address; further ones are closed.
        on_closed: is told why a connection was not accepted or kept.
        tls: returns what a handshake uses, as it is by then; None: no TLS.
    """

    def __init__(
        self,
        made: Connections,
        calls: CallRunner,
        bounds: Bounds,
        body_bytes: int,
        connections: int,
        on_closed: Callable[[str], None],
        tls: Callable[[], ssl.SSLContext] | None,
    ) -> None:
        self._made = made
        self._requests = Requests(
            calls.begin, calls.progress, calls.refused, Bodies(body_bytes, calls.give_way)
        )
        self._bounds = bounds
        self._turns = Turns()
        self._most = connections
        self._on_closed = on_closed
        self._tls = tls
        self._counts: Counter[Hashable] = Counter()  # open, or shaking hands, by where
        self._connections: set[Connection] = set()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._all_closed = asyncio.Event()

    def start(self) -> None:
        """Answer connections from now on."""
        self._made.start(self._begin, partial(self._on_closed, "descriptors"))

    async def stop_accepting(self) -> None:
        """Take no further connections; tell the clients there are to go."""
        await self._made.stop()
        for task in self._handshakes:
            task.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)
        for connection in list(self._connections):
            connection.lifetime.drain(b"stopping")

    async def close(self) -> None:
        """Close the connections: those that are drained by themselves, then the others."""
        await self._until_closed()
        for connection in list(self._connections):
            connection.close()
        await self._until_closed()
        for connection in list(self._connections):
            connection.abort()

    async def _until_closed(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                while self._connections:
                    self._all_closed.clear()
                    await self._all_closed.wait()

    def _begin(self, where: Hashable, accepted: socket.socket) -> None:
        if self._counts[where] >= self._most:
            accepted.close()
            self._made.closed()
            self._on_closed("connections")
            return
        self._counts[where] += 1
        task = asyncio.get_running_loop().create_task(self._shake_hands(where, accepted))
        self._handshakes.add(task)
        task.add_done_callback(partial(self._shook_hands, where, accepted))

    async def _shake_hands(self, where: Hashable, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        lost = partial(self._lost, where)
        owner = Owner(self._connections.add, lost, self._on_closed, self._turns)
        made = partial(Connection, self._requests, self._bounds, owner)
        seconds = self._bounds.handshake_seconds
        try:
            if accepted.family != socket.AF_UNIX:
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is None:
                await loop.connect_accepted_socket(made, accepted)
            else:
                await loop.connect_accepted_socket(
                    made, accepted, ssl=self._tls(), ssl_handshake_timeout=seconds
                )
        except OSError:  # of TLS, or lost; nobody is there to be told
            self._end(where)
            accepted.close()
            self._on_closed("handshake")

    def _shook_hands(
        self, where: Hashable, accepted: socket.socket, task: asyncio.Task[None]
    ) -> None:
        self._handshakes.discard(task)
        if task.cancelled():  # perhaps before its first step
            self._end(where)
            accepted.close()

    def _lost(self, where: Hashable, connection: Connection) -> None:
        self._end(where)
        self._connections.discard(connection)
        if not self._connections:
            self._all_closed.set()

    def _end(self, where: Hashable) -> None:
        self._counts[where] -= 1
        self._made.closed()
