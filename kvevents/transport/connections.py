"""Which of a socket's connections a message came through."""

from __future__ import annotations

import itertools
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import zmq
from zmq.utils.monitor import parse_monitor_message

if TYPE_CHECKING:
    from collections.abc import Iterator

_TELL_SECONDS = 1.0  # by when a change is told of though messages keep coming
_NUMBERS = itertools.count(1)


class NewConnection(NamedTuple):
    """A connection, by its number, was made; noted: when (`time.perf_counter`)."""

    connection: int
    noted: float


class Connections:
    """Gives numbers, unique in this process, to the connections of a socket.

    bind: whether others connect to it. ZMQ says of a message which file descriptor it came through.
    A descriptor can be in use again while messages of its former connection still wait. Which of
    the two such a message came through cannot be told: it counts as of yet another connection, one
    that was lost, until all that waited have been taken. Where there are no descriptors (inproc),
    whoever connects is taken to be everybody.
    """

    def __init__(self, socket: zmq.Socket[bytes], *, bind: bool) -> None:
        self._opened = zmq.Event.ACCEPTED if bind else zmq.Event.CONNECTED
        self._made = zmq.Event.ACCEPTED if bind else zmq.Event.HANDSHAKE_SUCCEEDED
        self._monitor = socket.get_monitor_socket(
            self._opened | self._made | zmq.Event.DISCONNECTED
        )
        self._newest = 0
        self._numbers: dict[int, int] = {}
        self._lost: list[tuple[int, int]] = []
        self._ambiguous: set[int] = set()
        self._losses: list[int] = []
        self._changes: deque[NewConnection] = deque()

    @property
    def file_descriptor(self) -> int:
        """Tells, as ZMQ's do, that there may be something to `watch`."""
        return int(self._monitor.getsockopt(zmq.FD))

    def watch(self) -> bool:
        """Note what has happened: after messages were fetched, and before their `number` is wanted.

        Returns whether there is anything that `made` has not told yet.
        """
        try:
            while True:
                message = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
                self._note(message["event"], message["value"])
        except zmq.Again:
            return bool(self._changes)

    def _note(self, event: int, descriptor: int) -> None:
        now = time.perf_counter()
        if event == zmq.Event.DISCONNECTED:
            number = self._numbers.get(descriptor, 0)
            self._lost.append((descriptor, number))
            self._losses.append(number)
            self._changes = deque(made for made in self._changes if made.connection != number)
        if event == self._opened:
            if descriptor in self._numbers:
                self._ambiguous.add(descriptor)
            self._newest = self._numbers[descriptor] = next(_NUMBERS)
        if event == self._made:
            self._changes.append(NewConnection(self._newest, now))

    def number(self, descriptor: int) -> int:
        """The connection of a message that came through `descriptor`."""
        if descriptor in self._ambiguous:
            number = next(_NUMBERS)
            self._losses.append(number)
            return number
        return self._numbers.get(descriptor, self._newest)

    def losses(self) -> list[int]:
        """The connections that were lost since the last call; messages of theirs may still wait."""
        losses, self._losses = self._losses, []
        return losses

    def settled(self) -> None:
        """No message waits that came before: from now on descriptors tell connections apart."""
        self._ambiguous.clear()
        for descriptor, number in self._lost:
            if self._numbers.get(descriptor) == number:
                del self._numbers[descriptor]
        self._lost.clear()

    def made(self, *, drained: bool) -> Iterator[int]:
        """The connections that were made and stand, each once.

        drained: no message waits that came before. Otherwise only those made a while ago.
        """
        noted_by = time.perf_counter() - (0 if drained else _TELL_SECONDS)
        while self._changes and self._changes[0].noted <= noted_by:
            yield self._changes.popleft().connection

    def close(self) -> None:
        """Nothing is noted any more; before the socket is closed."""
        self._monitor.close(linger=0)
