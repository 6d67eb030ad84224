"""Takes messages from a SUB socket, part by part."""

from __future__ import annotations

from typing import NamedTuple

import zmq

_MOST_PARTS = 4  # a frame has three
_DROPPED_AT_ONCE = 1024


class ReceivedMessage(NamedTuple):
    """A message as it came."""

    parts: list[bytes]
    descriptor: int
    """The file descriptor that it came through; -1 where there is none."""


class MessageReader:
    """Receives the messages of a socket.

    A message can have any number of parts, and comes whole. Of one that has too many for a frame
    the first are returned, so that it is counted, and the rest is dropped a few at a time.
    """

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._is_dropping = False

    def receive(self) -> ReceivedMessage | None:
        """The next message; None after parts were dropped.

        Raises zmq.Again if there is none. Part by part is faster than `recv_multipart`.
        """
        receive = self._socket.recv
        if self._is_dropping:
            for _ in range(_DROPPED_AT_ONCE):
                if not receive(zmq.NOBLOCK, copy=False).more:
                    self._is_dropping = False
                    break
            return None
        part = receive(zmq.NOBLOCK, copy=False)
        parts = [part.bytes]
        while part.more and len(parts) < _MOST_PARTS:
            part = receive(zmq.NOBLOCK, copy=False)
            parts.append(part.bytes)
        self._is_dropping = bool(part.more)
        return ReceivedMessage(parts, _descriptor_of(part))


def _descriptor_of(part: zmq.Frame) -> int:
    try:
        return int(part.get(zmq.SRCFD))
    except zmq.ZMQError:
        return -1
