"""Listening sockets: of host and port, on both families where it says anywhere, or a path."""

from __future__ import annotations

import errno
import socket
import stat
from contextlib import suppress
from pathlib import Path

_BACKLOG = 1024
_WITHOUT_IPV6 = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}
_ANYWHERE = {"0.0.0.0", "::"}  # noqa: S104 - compared with


def listening_sockets(address: str) -> list[socket.socket]:
    """Bind host:port or unix:path and listen there. Raises OSError."""
    if address.startswith("unix:"):
        return [_unix(Path(address.removeprefix("unix:")))]
    host, _, port_text = address.rpartition(":")
    host, port = host.strip("[]"), int(port_text)
    if host in _ANYWHERE:
        try:
            return [_tcp(socket.AF_INET6, ("::", port), both=True)]
        except OSError as error:
            if error.errno not in _WITHOUT_IPV6:
                raise
        return [_tcp(socket.AF_INET, ("0.0.0.0", port))]  # noqa: S104 - as it says
    found: list[socket.socket] = []
    try:
        for family, _, _, _, place in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            at = (place[0], port, *place[2:]) if found else place
            found.append(_tcp(family, at))
            port = found[0].getsockname()[1]  # the same one for every address of a name
    except OSError:
        for each in found:
            each.close()
        raise
    return found


def close_socket(listening: socket.socket) -> None:
    """Stop listening; remove a path."""
    name = listening.getsockname()
    listening.close()
    if listening.family == socket.AF_UNIX and name:
        with suppress(OSError):
            Path(name).unlink()


def _tcp(family: int, place: tuple[object, ...], *, both: bool = False) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not both))
        listening.bind(place)
    except OSError:
        listening.close()
        raise
    return _listen(listening)


def _unix(path: Path) -> socket.socket:
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.stat().st_mode):  # of a process that was killed
            path.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(str(path))
    except OSError:
        listening.close()
        raise
    return _listen(listening)


def _listen(listening: socket.socket) -> socket.socket:
    listening.listen(_BACKLOG)
    listening.settimeout(0)
    return listening
