"""Accepts connections at listening sockets."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from typing_extensions import override

from service.accepting.connections import Connections
from service.accepting.sockets import close_socket, listening_sockets

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.accepting.connections import OnConnection

_RETRY_SECONDS = 0.1  # after a connection cannot be accepted, as with too many open files
_ACCEPTED_A_STEP = 100


class Acceptor(Connections):
    """Accepts connections in the event loop, at its addresses."""

    _on_connection: OnConnection

    def __init__(self) -> None:
        self._listening: list[socket.socket] = []
        self._is_paused = False

    @property
    @override
    def addresses(self) -> None:
        return None

    @override
    def bind(self, address: str) -> int:
        bound = listening_sockets(address)
        self._listening += bound
        name = bound[0].getsockname()
        return 0 if bound[0].family == socket.AF_UNIX else int(name[1])

    @override
    def start(self, on_connection: OnConnection, on_lost: Callable[[], None]) -> None:
        self._on_connection = on_connection
        for listening in self._listening:
            self._resume(listening)

    @override
    def become_ready(self) -> None:
        """Nobody waits for that."""

    @override
    def closed(self) -> None:
        """Nobody counts them."""

    @override
    async def stop(self) -> None:
        self.refuse()

    def refuse(self) -> None:
        """Let the operating system refuse connections from now on."""
        for listening in self._listening:
            asyncio.get_running_loop().remove_reader(listening)
            close_socket(listening)
        self._listening.clear()

    def pause(self) -> None:
        """Let connections wait to be accepted, until `go_on`."""
        self._is_paused = True
        for listening in self._listening:
            asyncio.get_running_loop().remove_reader(listening)

    def go_on(self) -> None:
        """Accept those that wait."""
        self._is_paused = False
        for listening in self._listening:
            self._resume(listening)

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._listening and not self._is_paused:  # else it was closed meanwhile
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_ACCEPTED_A_STEP):
            if self._is_paused:
                return
            try:
                accepted, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # such as too many open files
                loop.remove_reader(listening)
                loop.call_later(_RETRY_SECONDS, self._resume, listening)
                return
            accepted.settimeout(0)
            self._on_connection(listening, accepted)
