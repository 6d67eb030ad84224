"""Which process gets the next connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.deadlines import DEADLINE_SECONDS

from service.accepting import Channel, HandedConnections, handed
from service.processes import entrance
from service.processes.entrance import Entrance


class Process:
    """What takes the connections of an entrance, in this process."""

    def __init__(self, entrance: Entrance, number: int) -> None:
        there = entrance.admit(number)
        self.handed = HandedConnections(Channel(there), entrance.addresses)
        self.taken: list[socket.socket] = []
        self._more = asyncio.Event()
        self.lost = 0
        self.handed.start(self._take, self._lose)

    def _take(self, _where: object, connection: socket.socket) -> None:
        self.taken.append(connection)
        self._more.set()

    def _lose(self) -> None:
        self.lost += 1
        self._more.set()

    async def until_lost(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while self.lost < count:
                self._more.clear()
                await self._more.wait()

    async def until_taken(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while len(self.taken) < count:
                self._more.clear()
                await self._more.wait()

    def end_one(self) -> None:
        self.taken.pop().close()
        self.handed.closed()

    def get_stuck(self) -> None:
        asyncio.get_running_loop().remove_reader(self.handed._channel)

    def recover(self) -> None:
        asyncio.get_running_loop().add_reader(self.handed._channel, self.handed._take)

    def end(self) -> None:
        self.get_stuck()
        self.handed._channel.close()
        self.handed._lost.set()


class House:
    """An entrance, with processes behind it and clients before it."""

    def __init__(self, *, spreads: bool = True) -> None:
        self.entrance = Entrance("grpc", spreads=spreads)
        self.entrance.bind(["127.0.0.1:0"], may_move=False)
        self.processes: list[Process] = []
        self._clients: list[socket.socket] = []

    def process(self, *, is_ready: bool = True) -> Process:
        self.processes.append(Process(self.entrance, len(self.processes)))
        if is_ready:
            self.processes[-1].handed.become_ready()
        return self.processes[-1]

    async def connect(self, count: int = 1) -> None:
        host, _, port = self.entrance.addresses[0].rpartition(":")
        for _ in range(count):
            self._clients.append(socket.socket())
            self._clients[-1].settimeout(0)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(self._clients[-1], (host, int(port)))

    async def taken(self, count: int) -> list[int]:
        """How many connections each process has, once they have so many together."""
        while sum(len(process.taken) for process in self.processes) < count:
            more = [
                asyncio.create_task(each.until_taken(len(each.taken) + 1))
                for each in self.processes
            ]
            await asyncio.wait(more, return_when=asyncio.FIRST_COMPLETED)
            for each in more:
                each.cancel()
        return [len(process.taken) for process in self.processes]

    async def close(self) -> None:
        self.entrance.close()
        for process in self.processes:
            await process.handed.stop()
        for each in [
            *self._clients,
            *(taken for process in self.processes for taken in process.taken),
        ]:
            each.close()


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    yield house
    await house.close()


async def test_each_connection_goes_to_the_process_with_the_fewest(house: House) -> None:
    processes = [house.process() for _ in range(3)]
    for count in range(1, 10):
        await house.connect()
        counts = await house.taken(count)
    assert counts == [3, 3, 3]
    for _ in range(3):
        processes[1].end_one()
    for count in range(7, 10):
        await house.connect()
        counts = await house.taken(count)
    assert counts == [3, 3, 3]


async def test_connections_wait_until_a_process_is_ready(house: House) -> None:
    process = house.process(is_ready=False)
    await house.connect(2)
    process.handed.become_ready()
    await process.until_taken(2)


async def test_a_process_that_is_stuck_gets_one_connection_more_at_most(house: House) -> None:
    stuck, well = house.process(), house.process()
    await house.connect(2)
    assert await house.taken(2) == [1, 1]
    stuck.get_stuck()
    for count in range(1, 10):
        await house.connect()
        await well.until_taken(count)
    stuck.end()


async def test_a_process_that_has_ended_gets_none(house: House) -> None:
    first, second = house.process(), house.process()
    await house.connect(2)
    await house.taken(2)
    first.end()
    await house.connect(3)
    await second.until_taken(4)
    house.entrance.dismiss(0)
    await house.connect(3)
    await second.until_taken(7)


async def test_a_process_that_stops_takes_what_was_handed_to_it_before(house: House) -> None:
    first, second = house.process(), house.process()
    await house.connect(4)
    await first.handed.stop()
    await house.connect(2)
    assert sum(await house.taken(6)) == 6
    house.entrance.close_when_all_stop()
    await second.handed.stop()
    with pytest.raises(ConnectionRefusedError):
        await house.connect()


async def test_the_first_process_that_is_ready_gets_every_call_of_an_operator() -> None:
    house = House(spreads=False)
    first, second = house.process(is_ready=False), house.process()
    await house.connect()
    await second.until_taken(1)
    first.handed.become_ready()
    await asyncio.sleep(0)
    await house.connect(3)
    await first.until_taken(3)
    await house.close()


async def test_a_process_notices_that_the_supervisor_has_gone(house: House) -> None:
    process = house.process()
    house.entrance.dismiss(0)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await process.handed.until_lost()


async def test_connections_wait_while_every_process_is_behind(house: House) -> None:
    processes = [house.process() for _ in range(2)]
    await house.connect(2)
    assert await house.taken(2) == [1, 1]
    for process in processes:
        process.get_stuck()
    await house.connect(700)  # more than the channels have room for
    await asyncio.sleep(0.1)
    for process in processes:
        process.recover()
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert sum(await house.taken(702)) == 702


def full_channels(patched: pytest.MonkeyPatch) -> asyncio.Event:
    """Let no channel have room; returns what is set once one was tried."""
    tried = asyncio.Event()

    def hand(*_: object) -> None:
        tried.set()
        raise BlockingIOError

    patched.setattr(Channel, "hand", hand)
    return tried


async def test_a_connection_that_no_process_takes_waits_for_the_next_one(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may have ended, or its channel be full, before anybody has noticed."""
    house.process()
    with monkeypatch.context() as patched:
        tried = full_channels(patched)
        await house.connect(3)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await tried.wait()
    house.process()
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert sum(await house.taken(3)) == 3


async def test_a_connection_that_no_process_takes_is_closed_at_the_end(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, tried = house.process(), full_channels(monkeypatch)
    await house.connect()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await tried.wait()
        house.entrance.close_when_all_stop()
        await process.handed.stop()
        with contextlib.suppress(ConnectionResetError):
            assert not await asyncio.get_running_loop().sock_recv(house._clients[0], 1)


async def test_a_stuck_process_keeps_no_operator_from_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(entrance, "_STUCK_SECONDS", 0.2)
    house = House(spreads=False)
    stuck, well = house.process(), house.process()
    await house.connect()
    assert await house.taken(1) == [1, 0]
    stuck.get_stuck()
    with capture_logs() as logged:
        await house.connect()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not house.entrance._behind[0].is_stuck:  # noqa: ASYNC110 - a question of time
                await asyncio.sleep(0.01)
        await house.connect(4)
        await well.until_taken(4)
    said = [line for line in logged if line["event"] == "process_stuck"]
    assert [(line["process"], line["connections_waiting"]) for line in said] == [(0, 1)]
    stuck.recover()
    assert await house.taken(6) == [2, 4]
    await house.close()


async def test_a_process_that_falls_silent_is_lost_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handed, "_ALIVE_SECONDS", 0.01)
    monkeypatch.setattr(entrance, "_SILENT_LOST_SECONDS", 3)
    alive, silent = house.process(), house.process()
    await house.connect(2)
    assert await house.taken(2) == [1, 1]
    monkeypatch.setattr(silent.handed, "_say", lambda *_: None)
    heard = asyncio.Event()
    read = house.entrance._read

    def read_and_tell(number: int, channel: Channel) -> None:
        read(number, channel)
        if number == 0:
            heard.set()

    asyncio.get_running_loop().remove_reader(house.entrance._behind[0].channel)
    channel = house.entrance._behind[0].channel
    asyncio.get_running_loop().add_reader(channel, read_and_tell, 0, channel)
    lost = []
    for _ in range(6):  # seconds
        lost.append(house.entrance.lost_after_one_second_more())
        heard.clear()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await heard.wait()
    assert [each for each in lost if each] == [[1]]
    await house.connect(2)
    assert await house.taken(4) == [3, 1]  # none is handed to the silent one
    assert alive.taken


async def test_a_start_that_takes_long_is_logged_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entrance, "_SLOW_START_SECONDS", 2)
    house.process()
    await house.connect()
    await house.taken(1)
    house.process(is_ready=False)
    with capture_logs() as logged:
        for _ in range(3):
            assert house.entrance.lost_after_one_second_more() == []
    said = [(line["event"], line["process"], line["seconds"]) for line in logged]
    assert said == [("process_starts_slowly", 1, 2)]


async def test_a_connection_without_a_descriptor_is_counted(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = house.process()

    received = socket.recv_fds

    def without(*arguments: Any) -> tuple[bytes, list[int], int, Any]:
        """What the operating system leaves of it."""
        message, descriptors, flags, address = received(*arguments)
        for each in descriptors:
            os.close(each)
        return message, [], flags, address

    for connections in (1, 2):
        process.get_stuck()
        await house.connect()
        await asyncio.sleep(0)
        with monkeypatch.context() as patched:
            patched.setattr(socket, "recv_fds", without)
            process.recover()
            await process.until_lost(connections)
    await house.connect()
    await process.until_taken(1)
    assert process.lost == 2
