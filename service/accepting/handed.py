"""Connections that another process has accepted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from typing_extensions import override

from service.accepting.channel import ChannelClosedError, Report
from service.accepting.connections import Connections

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.accepting.channel import Channel
    from service.accepting.connections import OnConnection

_TAKEN_A_STEP = 100
_SAY_AGAIN_SECONDS = 0.1
_ALIVE_SECONDS = 1.0


class HandedConnections(Connections):
    """Connections of one listener, from the process that has bound its addresses.

    Args:
        channel: to that process.
        addresses: that it has bound.
    """

    _on_connection: OnConnection
    _on_lost: Callable[[], None]

    def __init__(self, channel: Channel, addresses: Sequence[str]) -> None:
        self._channel = channel
        self._addresses = list(addresses)
        self._unsaid: list[Report] = []
        self._over = asyncio.Event()  # no further ones come, as it should be
        self._lost = asyncio.Event()
        # Before this process is ready nothing can come but the end of the other one.
        asyncio.get_running_loop().add_reader(channel, self._take)

    @property
    @override
    def addresses(self) -> list[str]:
        return self._addresses

    @override
    def bind(self, address: str) -> int:
        raise NotImplementedError  # the addresses are bound

    @override
    def start(self, on_connection: OnConnection, on_lost: Callable[[], None]) -> None:
        self._on_connection, self._on_lost = on_connection, on_lost

    @override
    def become_ready(self) -> None:
        self._say(Report.READY)
        asyncio.get_running_loop().call_later(_ALIVE_SECONDS, self._say_alive)

    @override
    def closed(self) -> None:
        self._say(Report.CLOSED)

    @override
    async def stop(self) -> None:
        if self._is_over:
            return
        self._say(Report.STOPPING)
        over, lost = (asyncio.create_task(each.wait()) for each in (self._over, self._lost))
        try:
            await asyncio.wait((over, lost), return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            lost.cancel()

    async def until_lost(self) -> None:
        """Wait until no connection can come any more, although nobody has said `stop`."""
        await self._lost.wait()

    @property
    def _is_over(self) -> bool:
        return self._over.is_set() or self._lost.is_set()

    def _take(self) -> None:
        for _ in range(_TAKEN_A_STEP):
            try:
                connection = self._channel.take()
            except (BlockingIOError, InterruptedError):
                return
            except ChannelClosedError:
                self._end(self._lost)
                return
            except OSError:  # too many open files: the operating system has closed it
                self._say(Report.TAKEN, Report.CLOSED)
                self._on_lost()
                continue
            if connection is None:
                self._end(self._over)
                return
            self._say(Report.TAKEN)
            connection.settimeout(0)
            self._on_connection(self, connection)

    def _say_alive(self) -> None:
        if not self._is_over:
            if not self._unsaid:  # else it is said with what waits
                self._say(Report.ALIVE)
            asyncio.get_running_loop().call_later(_ALIVE_SECONDS, self._say_alive)

    def _end(self, how: asyncio.Event) -> None:
        asyncio.get_running_loop().remove_reader(self._channel)
        self._channel.close()
        how.set()

    def _say(self, *reports: Report) -> None:
        if self._is_over:
            return
        is_waiting = bool(self._unsaid)
        self._unsaid += reports
        if not is_waiting:
            self._say_all()

    def _say_all(self) -> None:
        """Say what is unsaid; later, if the other process has no room for it."""
        try:
            while self._unsaid:
                self._channel.say(self._unsaid[0])
                self._unsaid.pop(0)
        except BlockingIOError:
            asyncio.get_running_loop().call_later(_SAY_AGAIN_SECONDS, self._say_all)
        except OSError:  # it has gone, which `_take` finds out, or says no more
            self._unsaid.clear()
