"""The addresses of one listener, and which process gets the next connection."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import structlog

from service.accepting import Acceptor, Report, bind, channel

if TYPE_CHECKING:
    import socket
    from collections.abc import Hashable, Sequence

    from service.accepting import Channel

_SAY_AGAIN_SECONDS = 0.1
_STUCK_SECONDS = 1.0
_SILENT_STUCK_SECONDS = 3  # a process says once a second that it is alive
_SILENT_LOST_SECONDS = 30
_SLOW_START_SECONDS = 60
_MOST_UNTAKEN = 100  # connections that wait for a process: its channel has room for some 250

_log = structlog.get_logger("kvatlas.service")


class _Behind:
    """A process behind an entrance."""

    def __init__(self, number: int, channel: Channel) -> None:
        self.number = number
        self.channel = channel
        self.is_ready = False
        self.is_starting = True
        self.connections = 0
        self.untaken = 0  # of those that were handed to it
        self._waiting_since = 0.0
        self._starting_seconds = 0
        self._silent_seconds = 0
        self._is_known_as_stuck = False

    def hand(self, connection: socket.socket) -> None:
        """Raises OSError: it has ended, or is stuck and takes none."""
        self.channel.hand(connection)
        self.connections += 1
        self.untaken += 1
        if self.untaken == 1:
            self._waiting_since = asyncio.get_running_loop().time()

    def has_spoken(self, count: int) -> None:
        """It has said something; it has taken so many of those that were handed to it."""
        self.untaken -= count
        if count:
            self._waiting_since = asyncio.get_running_loop().time()
        self._silent_seconds = 0
        self._is_known_as_stuck &= self.is_stuck

    def starts_one_second_longer(self) -> None:
        """Log once that its start takes long."""
        self._starting_seconds += 1
        if self._starting_seconds == _SLOW_START_SECONDS:
            _log.warning("process_starts_slowly", process=self.number, seconds=_SLOW_START_SECONDS)

    def is_lost_after_one_second_more(self) -> bool:
        """Count a second of silence; return whether it is the last one that is waited for."""
        self._silent_seconds += 1
        self.say_if_stuck()
        return self._silent_seconds == _SILENT_LOST_SECONDS

    @property
    def is_stuck(self) -> bool:
        """Whether it says nothing, or connections wait for it, and none was taken meanwhile."""
        waited = asyncio.get_running_loop().time() - self._waiting_since
        is_silent = self._silent_seconds > _SILENT_STUCK_SECONDS
        return is_silent or (self.untaken > 0 and waited > _STUCK_SECONDS)

    def say_if_stuck(self) -> None:
        """Log once that it is stuck."""
        if self.is_stuck and not self._is_known_as_stuck:
            self._is_known_as_stuck = True
            _log.error(
                "process_stuck",
                process=self.number,
                silent_seconds=self._silent_seconds,
                connections_waiting=self.untaken,
            )


class Entrance:
    """Accepts the connections of one listener, and hands each to a process.

    While no process is ready, or all are behind, connections wait to be accepted.

    Args:
        name: of the listener's section.
        spreads: whether the process with the fewest connections gets the next one; otherwise it is
            the first one that is ready.
    """

    def __init__(self, name: str, *, spreads: bool) -> None:
        self.name = name
        self.addresses: list[str] = []
        self.have_been_ready: set[int] = set()
        """Numbers of the processes that have been ready, at some time."""
        self._spreads = spreads
        self._acceptor = Acceptor()
        self._behind: dict[int, _Behind] = {}
        self._accepted: deque[socket.socket] = deque()
        self._is_closing = False

    def bind(self, addresses: Sequence[str], *, may_move: bool) -> None:
        """Listen, but accept nothing yet. Raises ListenError."""
        for address in addresses:
            bound = bind(self.name, address, self._acceptor.bind, may_move=may_move)
            self.addresses.append(bound)
        self._acceptor.pause()
        self._acceptor.start(self._on_connection, _nothing_lost)

    def admit(self, number: int) -> socket.socket:
        """Return what a process inherits to be handed connections."""
        here, there = channel()
        self._behind[number] = _Behind(number, here)
        asyncio.get_running_loop().add_reader(here, self._read, number, here)
        return there

    def dismiss(self, number: int) -> None:
        """Hand a process no further connections: it has ended."""
        behind = self._behind.pop(number)
        asyncio.get_running_loop().remove_reader(behind.channel)
        behind.channel.close()
        self._look()

    def lost_after_one_second_more(self) -> list[int]:
        """Count a second of silence; return the processes that have now been silent for too long.

        Seconds are counted, not measured: whoever was suspended together with them waits anew.
        """
        for each in self._behind.values():
            if each.is_starting:
                each.starts_one_second_longer()
        ready = [each for each in self._behind.values() if each.is_ready]
        return [each.number for each in ready if each.is_lost_after_one_second_more()]

    def close(self) -> None:
        """Let the operating system refuse connections; hand out no more."""
        self._refuse()
        for number in list(self._behind):
            self.dismiss(number)

    def close_when_all_stop(self) -> None:
        """Refuse connections as soon as no process takes any more."""
        self._is_closing = True

    def _ready(self) -> list[_Behind]:
        """The processes that take connections, in the order in which they are asked.

        One that is stuck comes last: it has few connections, and does not take those that it is
        handed.
        """
        ready = [each for each in self._behind.values() if each.is_ready]
        if self._spreads:
            return sorted(ready, key=lambda each: (each.is_stuck, each.untaken, each.connections))
        return sorted(ready, key=lambda each: (each.is_stuck, each.number))

    def _with_room(self) -> list[_Behind]:
        return [each for each in self._ready() if each.untaken < _MOST_UNTAKEN]

    def _on_connection(self, _where: Hashable, connection: socket.socket) -> None:
        for behind in self._behind.values():
            behind.say_if_stuck()
        self._accepted.append(connection)
        self._look()

    def _hand_on(self) -> bool:
        """Hand on what was accepted; False: no process takes the next one."""
        while self._accepted:
            for behind in self._with_room():
                try:
                    behind.hand(self._accepted[0])
                except OSError:
                    continue
                self._accepted.popleft().close()
                break
            else:
                return False
        return True

    def _read(self, number: int, read: Channel) -> None:
        behind = self._behind[number]
        try:
            reports = read.reports()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            asyncio.get_running_loop().remove_reader(read)
            behind.is_ready = False
            self._look()
            return
        behind.connections -= reports.count(Report.CLOSED)
        behind.has_spoken(reports.count(Report.TAKEN))
        if Report.READY in reports:
            behind.is_ready = True
            behind.is_starting = False
            self.have_been_ready.add(number)
        if Report.STOPPING in reports:
            behind.is_ready = behind.is_starting = False
            self._say_no_more(behind)
        self._look()

    def _look(self) -> None:
        """Accept connections if a process takes them; what none takes for now waits here."""
        if self._hand_on() and self._with_room():
            self._acceptor.go_on()
        else:
            self._acceptor.pause()
            if self._is_closing and not self._ready():
                self._refuse()

    def _refuse(self) -> None:
        self._acceptor.refuse()
        while self._accepted:
            self._accepted.popleft().close()

    def _say_no_more(self, behind: _Behind) -> None:
        try:
            behind.channel.say_no_more()
        except BlockingIOError:  # connections that it has yet to take
            asyncio.get_running_loop().call_later(_SAY_AGAIN_SECONDS, self._say_no_more, behind)
        except OSError:  # it has ended
            return


def _nothing_lost() -> None:
    """Without descriptors connections wait to be accepted."""
