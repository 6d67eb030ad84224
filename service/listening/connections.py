"""The connections of a listener, as the operating system knows them.

gRPC closes connections of a server only together with the calls on them, which then end as
CANCELLED: no client tries those again. A call whose connection is lost ends as UNAVAILABLE, and
clients repeat it elsewhere. So a server that stops closes the sockets itself.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

_DESCRIPTORS = "/dev/fd"


def client_of(peer: str) -> str:
    """What tells the clients of a listener apart, of gRPC's name of a peer: its port.

    All clients of a Unix socket are one, as the operating system gives them no names.
    """
    return peer.rpartition(":")[2] if not peer.startswith("unix") else ""


class Connections:
    """Connections that clients have to some addresses, by client; taken at one moment."""

    def __init__(self, addresses: list[str]) -> None:
        """Args: addresses: as they were bound, with the ports in use."""
        paths = {name.removeprefix("unix:") for name in addresses if name.startswith("unix:")}
        ports = {int(a.rpartition(":")[2]) for a in addresses if not a.startswith("unix:")}
        self._sockets: dict[str, list[socket.socket]] = {}
        for descriptor in os.listdir(_DESCRIPTORS) if Path(_DESCRIPTORS).is_dir() else ():  # noqa: PTH208
            connection = _open(int(descriptor))
            if connection is None:
                continue
            client = _client(connection, ports, paths)
            if client is None:
                connection.close()
            else:
                self._sockets.setdefault(client, []).append(connection)

    @property
    def clients(self) -> list[str]:
        """Those that are still connected."""
        return list(self._sockets)

    def close(self, client: str) -> None:
        """Close a client's connections, after what was written to them."""
        for connection in self._sockets.pop(client, ()):
            with suppress(OSError):  # the client was first
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def release(self) -> None:
        """Leave the remaining connections to gRPC."""
        for connections in self._sockets.values():
            for connection in connections:
                connection.close()
        self._sockets.clear()


def _open(descriptor: int) -> socket.socket | None:
    """A second descriptor of a socket; None if it is none, or closed by now."""
    try:
        copy = os.dup(descriptor)
    except OSError:
        return None
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None


def _client(connection: socket.socket, ports: set[int], paths: set[str]) -> str | None:
    """The client of a connection that was accepted at one of the ports and paths, or None."""
    try:
        here = connection.getsockname()
        there = connection.getpeername()
    except OSError:  # not connected
        return None
    if connection.family == socket.AF_UNIX:
        return "" if here in paths else None
    if connection.family in (socket.AF_INET, socket.AF_INET6) and here[1] in ports:
        return str(there[1])
    return None
