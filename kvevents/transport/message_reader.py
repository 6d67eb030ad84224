"""Takes messages from a SUB socket, part by part."""

from __future__ import annotations

import zmq

_MOST_PARTS = 4  # a frame has three
_DROPPED_AT_ONCE = 1024
# As integers: pyzmq takes a microsecond longer to make C integers of members of an enum.
_NOBLOCK, _DESCRIPTOR = int(zmq.NOBLOCK), int(zmq.SRCFD)


ReceivedMessage = tuple[list[bytes], int]
"""The parts of a message, and the file descriptor that it came through; -1 where there is none."""


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
                if not receive(_NOBLOCK, copy=False).more:
                    self._is_dropping = False
                    break
            return None
        part = receive(_NOBLOCK, copy=False)
        parts = [part.bytes]
        while part.more and len(parts) < _MOST_PARTS:
            part = receive(_NOBLOCK, copy=False)
            parts.append(part.bytes)
        self._is_dropping = bool(part.more)
        try:
            return parts, int(part.get(_DESCRIPTOR))
        except zmq.ZMQError:
            return parts, -1
