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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_DESCRIPTORS = "/dev/fd"


def client_of(peer: str) -> str:
    """What tells the clients of a listener apart, of gRPC's name of a peer: its port.

    All clients of a Unix socket are one, as the operating system gives them no names.
    """
    return peer.rpartition(":")[2] if not peer.startswith("unix") else ""


def refuse_connections(addresses: list[str]) -> None:
    """Let the operating system refuse new connections to these addresses.

    gRPC goes on accepting until its server stops, when calls on new connections end as CANCELLED.
    """
    for listening in _listed(addresses, accepting=True):
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()


class Connections:
    """Connections that clients have to some addresses, by client; taken at one moment."""

    def __init__(self, addresses: list[str]) -> None:
        """Args: addresses: as they were bound, with the ports in use."""
        self._sockets: dict[str, list[socket.socket]] = {}
        for connection in _listed(addresses, accepting=False):
            try:
                there = connection.getpeername()
            except OSError:  # lost
                connection.close()
                continue
            client = "" if connection.family == socket.AF_UNIX else str(there[1])
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


def _listed(addresses: list[str], *, accepting: bool) -> Iterator[socket.socket]:
    """Sockets of this process at these addresses: those that listen there, or the others."""
    paths = {name.removeprefix("unix:") for name in addresses if name.startswith("unix:")}
    ports = {int(a.rpartition(":")[2]) for a in addresses if not a.startswith("unix:")}
    names = os.listdir(_DESCRIPTORS) if Path(_DESCRIPTORS).is_dir() else []  # noqa: PTH208
    for name in names:
        found = _open(int(name))
        if found is None:
            continue
        listens = bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        if listens is accepting and _is_at(found, ports, paths):
            yield found
        else:
            found.close()


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


def _is_at(found: socket.socket, ports: set[int], paths: set[str]) -> bool:
    try:
        here = found.getsockname()
    except OSError:
        return False
    if found.family == socket.AF_UNIX:
        return here in paths
    return found.family in (socket.AF_INET, socket.AF_INET6) and here[1] in ports
