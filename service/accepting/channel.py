"""Between two processes: connections go one way, what became of them the other.

A message is one byte. The operating system passes a connection's descriptor along with it, and
joins no other byte to that one.
"""

from __future__ import annotations

import socket
from enum import IntEnum
from typing import Final

_CONNECTION: Final = b"c"
_NO_MORE: Final = b"."
_NOT_INHERITED = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Report(IntEnum):
    """What the process that is handed connections says."""

    READY = ord("r")
    """It answers calls."""
    ALIVE = ord("a")
    """It still does; said once a second."""
    TAKEN = ord("t")
    """It has taken a connection that was handed to it."""
    CLOSED = ord("x")
    """One of its connections is over."""
    STOPPING = ord("s")
    """It wants no more of them."""


class ChannelClosedError(OSError):
    """The other process has gone."""


class Channel:
    """One end of a channel. Never blocks: BlockingIOError says that there is nothing, or no room.

    Args:
        end: one of a pair of sockets; `channel` makes them.
    """

    def __init__(self, end: socket.socket) -> None:
        end.settimeout(0)
        self.end = end

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self.end.fileno()

    def close(self) -> None:
        """Close this end; the other one then reads `ChannelClosedError`."""
        self.end.close()

    # The process that accepts connections

    def hand(self, connection: socket.socket) -> None:
        """Pass a connection. Raises OSError: the other process has gone, or has no room."""
        socket.send_fds(self.end, [_CONNECTION], [connection.fileno()])

    def say_no_more(self) -> None:
        """Say that no connection follows. Raises OSError."""
        self.end.send(_NO_MORE)

    def reports(self) -> list[Report]:
        """Read what the other process has said. Raises ChannelClosedError, BlockingIOError."""
        return [Report(byte) for byte in self._received(4096)]

    # The process that is handed connections

    def say(self, report: Report) -> None:
        """Tell the other process. Raises OSError."""
        self.end.send(bytes((report,)))

    def take(self) -> socket.socket | None:
        """Read one connection; None: no further ones come.

        Raises ChannelClosedError, BlockingIOError, and OSError if it cannot be opened here.
        """
        message, descriptors, _, _ = socket.recv_fds(self.end, 1, 1, _NOT_INHERITED)
        if not message:
            raise ChannelClosedError("the process that accepts connections has gone")
        if message == _NO_MORE:
            return None
        if not descriptors:
            raise OSError("too many open files")
        return socket.socket(fileno=descriptors[0])

    def _received(self, size: int) -> bytes:
        received = self.end.recv(size)
        if not received:
            raise ChannelClosedError("the process that is handed connections has gone")
        return received


def channel() -> tuple[Channel, socket.socket]:
    """Make a channel: this process's end, and the socket that another one inherits."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(here), there
