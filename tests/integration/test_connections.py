"""Through which connection a message came: real sockets, one of them bound by us."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import TYPE_CHECKING

import pytest
import zmq
from support.deadlines import DEADLINE_SECONDS
from support.engines.faulty import bind

from kvevents import SocketLimits, Source, Subscriber
from kvevents.transport.connections import Connections

if TYPE_CHECKING:
    from collections.abc import Callable


class RecordingListener:
    """A listener that keeps messages and changes of connections."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, int]] = []
        self.up: set[int] = set()
        self.changes = self.refused = 0
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

    is_busy = False

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

    def on_connections_refused(self, source: Source, reason: str, count: int) -> None:
        del source, reason
        self.refused += count
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


async def test_a_connection_that_comes_back_by_itself_is_not_made_twice() -> None:
    """An engine's replay socket may answer before anybody has noticed that it publishes again."""
    heard = RecordingListener()
    with zmq.Context() as context:
        first, again = context.socket(zmq.XPUB), context.socket(zmq.XPUB)
        first.bind("tcp://127.0.0.1:*")
        endpoint = first.getsockopt_string(zmq.LAST_ENDPOINT)
        async with Subscriber(context, Source(endpoint), heard) as subscriber:
            await heard.until(lambda: len(heard.up) == 1)
            monitor = again.get_monitor_socket(zmq.Event.HANDSHAKE_SUCCEEDED)
            first.close(linger=0)
            await heard.until(lambda: not heard.up)
            await bind(again, endpoint)
            assert monitor.poll(int(DEADLINE_SECONDS * 1000))  # nothing else runs meanwhile
            subscriber.reconnect()
            await heard.until(lambda: bool(heard.up))
            while not heard.messages:
                again.send(b"")
                await asyncio.sleep(0)
            assert heard.up == heard.through(b"")
            again.disable_monitor()
            monitor.close()
        again.close(linger=0)


def test_a_connection_is_lost_once_there_is_another_to_the_same_publisher() -> None:
    """ZMQ does not tell of the end of a connection that it was told to end."""
    with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
        publisher.bind("tcp://127.0.0.1:*")
        endpoint = publisher.getsockopt_string(zmq.LAST_ENDPOINT)
        with context.socket(zmq.SUB) as subscriber:
            connections = Connections(subscriber, bind=False, most=1, allowed_peers=[])
            subscriber.connect(endpoint)
            (first,) = made(connections)
            subscriber.disconnect(endpoint)
            subscriber.connect(endpoint)
            (second,) = made(connections)
            assert second != first
            assert connections.take_lost() == [first]
            subscriber.disable_monitor()
            connections.close()


def made(connections: Connections) -> list[int]:
    """The next connections."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not connections.watch():
        assert time.monotonic() < deadline
    return list(connections.take_made(drained=True))


async def test_connections_beyond_the_limit_are_closed_and_counted() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    heard = RecordingListener()
    source = Source("tcp://127.0.0.1:*", bind=True)
    async with Subscriber(context, source, heard, SocketLimits(connections=2)) as subscriber:
        first, second = [await publisher(context, subscriber.endpoint) for _ in range(2)]
        stranger = context.socket(zmq.XPUB)
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.connect(subscriber.endpoint)
        await heard.until(lambda: heard.refused >= 1)
        for socket, text in ((first, b"first"), (second, b"second")):
            socket.send_multipart([text, b""])
        await heard.until(lambda: len(heard.messages) == 2)
        second.close()  # now there is room
        assert await asyncio.to_thread(stranger.poll, int(DEADLINE_SECONDS * 1000))
        stranger.recv()
        stranger.send_multipart([b"stranger", b""])
        await heard.until(lambda: bool(heard.through(b"stranger")))
        first.close()
        stranger.close()
    context.term()


async def test_a_larger_message_than_is_taken_costs_the_connection_but_no_memory() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    heard = RecordingListener()
    source = Source("tcp://127.0.0.1:*", bind=True)
    limits = SocketLimits(message_bytes=100_000)
    async with Subscriber(context, source, heard, limits) as subscriber:
        sender = await publisher(context, subscriber.endpoint)
        await heard.until(lambda: len(heard.up) == 1)
        sender.send_multipart([b"large", bytes(100_001)])
        await heard.until(lambda: not heard.up)
        assert not heard.through(b"large")
        sender.close()
    context.term()


async def test_a_publisher_is_kept_though_its_messages_wait_for_longer_than_heartbeats() -> None:
    """Its heartbeats are every two seconds; ZMQ answers them for as long as it reads."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    heard = RecordingListener()
    source = Source("tcp://127.0.0.1:*", bind=True)
    async with Subscriber(context, source, heard, SocketLimits(queue_messages=8)) as subscriber:
        sender = await publisher(context, subscriber.endpoint)
        await heard.until(lambda: len(heard.up) == 1)
        subscriber.pause()
        for number in range(800):
            sender.send_multipart([b"%d" % number, bytes(20_000)])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(8):
                await heard.until(lambda: not heard.up)
        subscriber.resume()
        await heard.until(lambda: len(heard.messages) == 800)
        assert [text for text, _ in heard.messages] == [b"%d" % number for number in range(800)]
        sender.close()
    context.term()


def zmtp_peer(endpoint: str) -> socket.socket:
    """A peer that has shaken hands as a PUB socket, and goes on as it likes."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    peer = socket.create_connection((host.strip("[]").removeprefix("::ffff:"), int(port)))
    peer.settimeout(DEADLINE_SECONDS)
    peer.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
    ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB"
    peer.sendall(bytes([4, len(ready)]) + ready)
    received = b""
    while b"READY" not in received:
        received += peer.recv(1000)
    return peer


async def test_a_message_that_never_ends_costs_the_connection() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    heard = RecordingListener()
    source = Source("tcp://127.0.0.1:*", bind=True)
    limits = SocketLimits(message_bytes=100_000)
    async with Subscriber(context, source, heard, limits) as subscriber:
        honest = await publisher(context, subscriber.endpoint)
        part = b"\x03" + (90_000).to_bytes(8, "big") + bytes(90_000)  # there is more to come

        def send_for_ever() -> int:
            sent = 0
            with zmtp_peer(subscriber.endpoint) as peer, contextlib.suppress(OSError):
                while True:
                    peer.sendall(part)
                    sent += len(part)
            return sent

        sending = asyncio.create_task(asyncio.to_thread(send_for_ever))
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not heard.refused:
                await asyncio.sleep(0.01)
                subscriber.close_overfull()
            assert await sending > 8 * limits.message_bytes
        for number in range(500):  # what has come whole does not count
            honest.send_multipart([b"honest", bytes(2_000), b"%d" % number])
        await heard.until(lambda: len(heard.messages) == 500)
        subscriber.close_overfull()
        honest.send_multipart([b"honest", b"", b""])
        await heard.until(lambda: len(heard.messages) == 501)
        assert heard.refused == 1
        honest.close()
    context.term()


async def test_a_message_of_many_parts_is_dropped_and_the_next_one_comes() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    heard = RecordingListener()
    source = Source("tcp://127.0.0.1:*", bind=True)
    async with Subscriber(context, source, heard) as subscriber:
        sender = await publisher(context, subscriber.endpoint)
        sender.send_multipart([b"many", *[b""] * 20_000])
        sender.send_multipart([b"next", b"", b""])
        await heard.until(lambda: len(heard.messages) == 2)
        assert [text for text, _ in heard.messages] == [b"many", b"next"]
        sender.close()
    context.term()
