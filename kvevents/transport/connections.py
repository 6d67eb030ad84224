"""Which of a socket's connections a message came through."""

from __future__ import annotations

import itertools
import os
import socket as sockets
import struct
import time
from collections import Counter, deque
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple

import zmq
from zmq.utils.monitor import parse_monitor_message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_REPORT_SECONDS = 1.0  # by when a new connection is reported though messages keep coming
_EXAMINED = 256  # connections at a time
_RECEIVED_AT = 128  # offset of tcpi_bytes_received in Linux's struct tcp_info
# How ZMTP sends a part: a flag and a length before it.
_SHORT_HEAD, _LONG_HEAD, _LONGEST_SHORT = 2, 9, 255
_HEARTBEAT_BYTES_PER_SECOND = 64  # more than they are
_EVENTS, _READABLE = int(zmq.EVENTS), int(zmq.POLLIN)
_NUMBERS = itertools.count(1)


class NewConnection(NamedTuple):
    """A connection that was made."""

    connection: int
    noticed_at: float
    """By `time.perf_counter`."""


class Connections:
    """Gives the connections of a socket numbers that are unique in this process.

    ZMQ tells through which file descriptor a message came. A descriptor can be in use again while
    messages of its former connection still wait in the socket; such a message could have come
    through either. It is attributed to a connection of its own that is lost already, until all
    messages that waited have been fetched. Where there are no descriptors (inproc), every message
    is attributed to the newest connection.

    Args:
        socket: the socket, before it is bound or connected.
        bind: whether peers connect to it, rather than it to a peer.
        most: how many peers may be connected; further connections are closed.
        allowed_peers: addresses and networks of peers that may connect; empty: all.
    """

    def __init__(
        self, socket: zmq.Socket[bytes], *, bind: bool, most: int, allowed_peers: Sequence[str]
    ) -> None:
        self._socket = socket
        self._is_bound, self._most = bind, most
        self._open: set[int] = set()  # descriptors
        self._allowed_peers = [ip_network(peer) for peer in allowed_peers]
        self._refused: Counter[str] = Counter()
        self._refused_connections: set[int] = set()
        self._taken: Counter[int] = Counter()  # bytes that were taken from each connection
        self._made_at: dict[int, float] = {}  # by connection
        self._unexamined: list[int] = []  # descriptors
        self._opened = zmq.Event.ACCEPTED if bind else zmq.Event.CONNECTED
        self._made = zmq.Event.ACCEPTED if bind else zmq.Event.HANDSHAKE_SUCCEEDED
        self._monitor = socket.get_monitor_socket(
            self._opened | self._made | zmq.Event.DISCONNECTED
        )
        self._newest = 0
        self.peers: dict[int, str] = {}
        """Connection -> the IP address of its peer; only of those to a bound TCP endpoint."""
        self._numbers: dict[int, int] = {}  # by descriptor
        self._lost: list[tuple[int, int]] = []  # descriptors and numbers, until they are forgotten
        self._ambiguous: set[int] = set()  # descriptors in use again while messages still wait
        self._unreported_losses: list[int] = []
        self._unreported: deque[NewConnection] = deque()

    @property
    def file_descriptor(self) -> int:
        """Becomes readable, edge-triggered as ZMQ's are, when there may be something to `watch`."""
        return int(self._monitor.getsockopt(zmq.FD))

    def watch(self) -> bool:
        """Notice connections made and lost.

        Call it after messages were fetched, and before `number` is asked about them. Returns
        whether there are new connections that `take_made` has not returned yet.
        """
        monitor = self._monitor
        while int(monitor.getsockopt(_EVENTS)) & _READABLE:
            message = parse_monitor_message(monitor.recv_multipart(zmq.NOBLOCK))
            self._notice(message["event"], message["value"])
        return bool(self._unreported)

    def _notice(self, event: int, descriptor: int) -> None:
        now = time.perf_counter()
        if event == zmq.Event.DISCONNECTED:
            self._lose(descriptor)
        if event == self._opened:
            if not self._is_bound:  # ZMQ says nothing of one that `zmq.Socket.disconnect` has ended
                for former in list(self._open):
                    self._lose(former)
            if descriptor in self._numbers:
                self._ambiguous.add(descriptor)
            self._newest = self._numbers[descriptor] = next(_NUMBERS)
            self._made_at[self._newest] = time.monotonic()
            if self._is_bound:
                self.peers[self._newest] = self._with_connection(descriptor, _peer_address)
            self._open.add(descriptor)
            if refusal := self._refusal_of(self._newest):
                self._refuse(descriptor, self._newest, refusal)
        if event == self._made:
            self._unreported.append(NewConnection(self._newest, now))

    def _lose(self, descriptor: int) -> None:
        self._open.discard(descriptor)
        number = self._numbers.get(descriptor, 0)
        self._lost.append((descriptor, number))
        self._unreported_losses.append(number)
        self._unreported = deque(new for new in self._unreported if new.connection != number)

    def _refuse(self, descriptor: int, connection: int, reason: str) -> None:
        self._refused[reason] += 1
        self._refused_connections.add(connection)
        self._with_connection(descriptor, _shut_down)

    def count_taken(self, connection: int, parts: Sequence[bytes]) -> None:
        """A message has come through a connection, and is not in ZMQ any more."""
        if self._is_bound:
            self._taken[connection] += sum(
                len(part) + (_LONG_HEAD if len(part) > _LONGEST_SHORT else _SHORT_HEAD)
                for part in parts
            )

    def close_overfull(self, limit: int) -> None:
        """Close connections of which more than `limit` bytes have come that were not taken.

        ZMQ hands a message on when it is whole, and its limits are those of one part: without this
        a message of ever more parts would take ever more memory. Some connections are examined at
        each call, and all in turn.
        """
        if not self._unexamined:
            self._unexamined = list(self._open)
        now = time.monotonic()
        for descriptor in self._unexamined[-_EXAMINED:]:
            connection = self._numbers.get(descriptor)
            if connection is None or connection in self._refused_connections:
                continue
            received = self._with_connection(descriptor, _bytes_received)
            alive = now - self._made_at.get(connection, now)
            taken = self._taken[connection] + _HEARTBEAT_BYTES_PER_SECOND * alive
            if int(received or 0) - taken > limit:
                self._refuse(descriptor, connection, "message_too_large")
        del self._unexamined[-_EXAMINED:]

    def _with_connection(self, descriptor: int, use: Callable[[sockets.socket], str]) -> str:
        """Use the TCP connection under ZMQ; empty if it is closed already, or is none."""
        _, _, port = self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")
        try:
            with sockets.socket(fileno=os.dup(descriptor)) as connection:
                if str(connection.getsockname()[1]) == port:  # the descriptor may be another's now
                    return use(connection)
        except (OSError, IndexError):
            pass
        return ""

    def _refusal_of(self, connection: int) -> str:
        """Why a new connection is closed, in one word; empty if it is not."""
        if not self._is_bound:
            return ""
        if len(self._open) > self._most:
            return "too_many_connections"
        if not self._allowed_peers:
            return ""
        address = self.peers[connection]
        is_allowed = address and any(ip_address(address) in net for net in self._allowed_peers)
        return "" if is_allowed else "peer_not_allowed"

    def take_refused(self) -> Counter[str]:
        """How many connections were closed since the last call, by reason."""
        refused = self._refused
        if refused:
            self._refused = Counter()
        return refused

    def is_refused(self, connection: int) -> bool:
        """Whether a connection was closed, so that what has come through it is dropped."""
        return connection in self._refused_connections

    def number(self, descriptor: int) -> int:
        """The number of the connection of a message that came through `descriptor`."""
        if descriptor in self._ambiguous:
            number = next(_NUMBERS)
            self._unreported_losses.append(number)
            return number
        return self._numbers.get(descriptor, self._newest)

    def take_lost(self) -> list[int]:
        """The connections lost since the last call; messages of theirs may still wait."""
        losses, self._unreported_losses = self._unreported_losses, []
        return losses

    def on_drained(self) -> None:
        """No older message waits in the socket: from now on descriptors identify connections."""
        self._ambiguous.clear()
        for descriptor, number in self._lost:
            if self._numbers.get(descriptor) == number:
                del self._numbers[descriptor]
            self.peers.pop(number, None)
            self._refused_connections.discard(number)
            self._taken.pop(number, None)
            self._made_at.pop(number, None)
        self._lost.clear()

    def take_made(self, *, drained: bool) -> Iterator[int]:
        """The connections that were made and are still up, each once.

        Args:
            drained: whether no older message waits. If some do, only connections that were made a
                while ago are returned.
        """
        deadline = time.perf_counter() - (0 if drained else _REPORT_SECONDS)
        while self._unreported and self._unreported[0].noticed_at <= deadline:
            yield self._unreported.popleft().connection

    def close(self) -> None:
        """Stop watching; call it before the socket is closed."""
        self._monitor.close(linger=0)


def _peer_address(connection: sockets.socket) -> str:
    address = str(connection.getpeername()[0])
    return address.removeprefix("::ffff:")  # an IPv4 peer of an IPv6 socket


def _bytes_received(connection: sockets.socket) -> str:
    """How many bytes the peer has sent so far; empty where the system does not tell."""
    if not hasattr(sockets, "TCP_INFO"):
        return ""
    end = _RECEIVED_AT + struct.calcsize("Q")
    information = connection.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_INFO, end)
    if len(information) < end:
        return ""
    (received,) = struct.unpack_from("Q", information, _RECEIVED_AT)
    return str(received)


def _shut_down(connection: sockets.socket) -> str:
    """Let ZMQ take the connection for lost, and the system tell the peer as ZMQ closes it."""
    connection.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, struct.pack("ii", 1, 0))
    connection.shutdown(sockets.SHUT_RDWR)
    return ""
