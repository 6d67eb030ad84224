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
from service.listening.http2.sockets import close_socket, listening_sockets
from service.listening.http2.turns import Turns

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from service.listening.http2.lifetime import Bounds
    from service.listening.native.runner import CallRunner

_RETRY_SECONDS = 0.1  # after a connection cannot be accepted, as with too many open files
_ACCEPTED_A_STEP = 100
_CLOSE_SECONDS = 1.0  # for clients to confirm that they make no further calls; to send the rest


class Http2Server:
    """Accepts connections at its addresses.

    Args:
        calls: answer the requests.
        bounds: of each connection.
        body_bytes: of all requests that are not whole or not read.
        connections: how many may be open at one address; further ones are closed.
        on_closed: is told why a connection was not accepted or kept.
        tls: returns what a handshake uses, as it is by then; None: no TLS.
    """

    def __init__(
        self,
        calls: CallRunner,
        bounds: Bounds,
        body_bytes: int,
        connections: int,
        on_closed: Callable[[str], None],
        tls: Callable[[], ssl.SSLContext] | None,
    ) -> None:
        self._requests = Requests(
            calls.begin, calls.progress, calls.refused, Bodies(body_bytes, calls.give_way)
        )
        self._bounds = bounds
        self._turns = Turns()
        self._most = connections
        self._on_closed = on_closed
        self._tls = tls
        self._listening: list[socket.socket] = []
        self._counts: Counter[socket.socket] = Counter()  # open, or shaking hands
        self._connections: set[Connection] = set()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._all_closed = asyncio.Event()

    def bind(self, address: str) -> int:
        """Listen at an address, but accept nothing yet.

        Returns:
            The port; 0 for a path. Raises OSError.
        """
        bound = listening_sockets(address)
        self._listening += bound
        name = bound[0].getsockname()
        return 0 if bound[0].family == socket.AF_UNIX else int(name[1])

    def start(self) -> None:
        """Accept connections from now on."""
        for listening in self._listening:
            self._resume(listening)

    async def stop_accepting(self) -> None:
        """Let the operating system refuse connections; tell the clients there are to go."""
        for listening in self._listening:
            asyncio.get_running_loop().remove_reader(listening)
            close_socket(listening)
        self._listening.clear()
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

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._listening:  # else it has been closed meanwhile
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_ACCEPTED_A_STEP):
            try:
                accepted, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # such as too many open files
                loop.remove_reader(listening)
                loop.call_later(_RETRY_SECONDS, self._resume, listening)
                return
            if self._counts[listening] >= self._most:
                accepted.close()
                self._on_closed("connections")
                continue
            self._counts[listening] += 1
            accepted.settimeout(0)
            task = loop.create_task(self._shake_hands(listening, accepted))
            self._handshakes.add(task)
            task.add_done_callback(partial(self._shook_hands, listening, accepted))

    async def _shake_hands(self, listening: socket.socket, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        lost = partial(self._lost, listening)
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
            self._counts[listening] -= 1
            accepted.close()
            self._on_closed("handshake")

    def _shook_hands(
        self, listening: socket.socket, accepted: socket.socket, task: asyncio.Task[None]
    ) -> None:
        self._handshakes.discard(task)
        if task.cancelled():  # perhaps before its first step
            self._counts[listening] -= 1
            accepted.close()

    def _lost(self, listening: socket.socket, connection: Connection) -> None:
        self._counts[listening] -= 1
        self._connections.discard(connection)
        if not self._connections:
            self._all_closed.set()
