"""Through which connection a message came: real sockets, one of them bound by us."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import zmq
from support.deadlines import DEADLINE_SECONDS

from kvevents import Source, Subscriber

if TYPE_CHECKING:
    from collections.abc import Callable


class RecordingListener:
    """A listener that keeps messages and changes of connections."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, int]] = []
        self.up: set[int] = set()
        self.changes = 0
        self.changed = asyncio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not holds():
                self.changed.clear()
                await self.changed.wait()

    def on_message(self, source: Source, parts: list[bytes], connection: int) -> None:
        del source
        self.messages.append((parts[0], connection))
        self.changed.set()

    def on_connected(self, source: Source, connection: int) -> None:
        del source
        self.up.add(connection)
        self.changes += 1
        self.changed.set()

    def on_disconnected(self, source: Source, connection: int) -> None:
        del source
        self.up.discard(connection)
        self.changes += 1
        self.changed.set()

    def through(self, text: bytes) -> set[int]:
        return {connection for said, connection in self.messages if said == text}


async def publisher(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> zmq.Socket[bytes]:
    """One that is connected, with our subscription received."""
    socket = context.socket(zmq.XPUB)
    socket.setsockopt(zmq.LINGER, int(DEADLINE_SECONDS * 1000))
    socket.connect(endpoint)
    assert await asyncio.to_thread(socket.poll, int(DEADLINE_SECONDS * 1000))
    socket.recv()
    return socket


async def test_each_publisher_has_a_connection_of_its_own() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    heard = RecordingListener()
    source = Source("tcp://127.0.0.1:*", bind=True)
    async with Subscriber(context, source, heard) as subscriber:
        first = await publisher(context, subscriber.endpoint)
        second = await publisher(context, subscriber.endpoint)
        for _ in range(3):
            first.send_multipart([b"first", b""])
            second.send_multipart([b"second", b""])
        await heard.until(lambda: len(heard.messages) == 6)
        assert len(heard.through(b"first")) == len(heard.through(b"second")) == 1
        both = heard.through(b"first") | heard.through(b"second")
        await heard.until(lambda: heard.up == both)
        first.close()
        await heard.until(lambda: heard.up == heard.through(b"second"))
        second.close()
    context.term()


async def test_a_publisher_that_reuses_a_descriptor_has_a_connection_of_its_own() -> None:
    """All of it happens while nothing is read: the system gives out the lowest number anew."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    heard = RecordingListener()
    source = Source("tcp://127.0.0.1:*", bind=True)
    async with Subscriber(context, source, heard) as subscriber:
        former = await publisher(context, subscriber.endpoint)
        subscriber.pause()
        former.send_multipart([b"former", b""])
        former.close()
        subscriber.resume()
        await heard.until(lambda: heard.changes >= 2)
        for _ in range(5):
            latter = await publisher(context, subscriber.endpoint)
            subscriber.pause()
            latter.send_multipart([b"latter", b""])
            latter.close()
            subscriber.resume()
        await heard.until(lambda: len(heard.messages) == 6)
        assert not heard.through(b"former") & heard.through(b"latter")
        assert len(heard.through(b"latter")) == 5
    context.term()
