"""Who reads slowly, here or there, holds up nobody else and takes a bounded amount of memory."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from support.clients.http2_peer import (
    DATA,
    PING,
    RESET,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    http2_peer,
    message,
)
from support.services.echo import LIMIT, EchoServer, echo_server

from service.listening.http2 import Stream, lifetime
from service.listening.native import transport as native

MOST_BYTES = 40_000_000
"""What either side may have taken before the other one reads."""


async def test_a_caller_that_does_not_read_stops_its_stream_alone(server: EchoServer) -> None:
    async with server.channel() as channel:
        method: Any = channel.unary_stream("/test.Echo/Flood")
        flood = method(b"8000")
        assert int.from_bytes((await flood.read())[:4]) == 0
        unary: Any = channel.unary_unary("/test.Echo/Unary")
        before = -1
        while server.echo.sent != before:  # until calls in between see no progress
            before = server.echo.sent
            for _ in range(50):
                assert await unary(b"x" * 1000) == b"x" * 1000
        assert server.echo.sent * 10_000 < MOST_BYTES
        for number in range(1, 8000):
            assert int.from_bytes((await flood.read())[:4]) == number


async def test_requests_that_are_not_read_wait_at_the_caller(server: EchoServer) -> None:
    request = bytes(100_000)
    async with server.channel() as channel:
        later: Any = channel.stream_stream("/test.Echo/Later")()
        written = 0

        async def write() -> None:
            nonlocal written
            for _ in range(800):
                await later.write(request)
                written += 1
            await later.done_writing()

        writing = asyncio.create_task(write())
        await server.echo.until(lambda: server.echo.seen["Later began"] == 1)
        unary: Any = channel.unary_unary("/test.Echo/Unary")
        before = -1
        while written != before:
            before = written
            for _ in range(50):
                assert await unary(b"x") == b"x"
        assert written * len(request) < MOST_BYTES
        server.echo.go_on.set()
        for _ in range(800):
            assert len(await later.read()) == len(request)
        await writing


@pytest.mark.parametrize("transport", ["http2"])
async def test_other_work_goes_on_while_a_large_request_arrives(server: EchoServer) -> None:
    rounds = 0

    async def count() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    async with server.channel() as channel:
        unary: Any = channel.unary_unary("/test.Echo/Unary")
        await unary(b"")
        counting = asyncio.create_task(count())
        calling = asyncio.to_thread(_ask, server.address, bytes(LIMIT))
        assert await calling == LIMIT
        counting.cancel()
    # It is received in steps of at most 256 KiB, and put together in as many.
    assert rounds > 2 * LIMIT // (256 * 1024)


def _ask(address: str, request: bytes) -> int:
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(address, options=options) as channel:
        method: Any = channel.unary_unary("/test.Echo/Unary")
        return len(method(request))


@pytest.mark.parametrize("transport", ["http2"])  # gRPC's core reads on, and drops it
async def test_a_caller_that_sends_more_than_it_may_is_cut_off(server: EchoServer) -> None:
    async with http2_peer(server.address) as peer:
        call = peer.call("/test.Echo/Later", None)
        for _ in range(2000):  # 32 MB
            peer.send(frame(DATA, 0, call, bytes(16_384)))
            await peer.flushed()
        while (received := await peer.read()) is not None:
            assert received.kind != WINDOW_UPDATE or received.stream == 0
    async with server.channel() as channel:
        unary: Any = channel.unary_unary("/test.Echo/Unary")
        assert await unary(b"on") == b"on"


async def test_a_caller_gets_its_answer_in_parts_as_it_makes_room(server: EchoServer) -> None:
    request = message(bytes(range(200)) * 50)
    async with http2_peer(server.address) as peer:
        peer.send(frame(4, 0, 0, (4).to_bytes(2) + (10).to_bytes(4)))  # ten bytes a stream
        call = peer.call("/test.Echo/Unary", request)
        answer = b""
        while len(answer) < len(request):
            received = await peer.read()
            assert received is not None
            if received.kind == DATA:
                assert len(received.payload) <= 1000
                answer += received.payload
                peer.send(frame(WINDOW_UPDATE, 0, call, (990).to_bytes(4)))
        assert answer == request
        assert (await peer.status_of(call))["grpc-status"] == "0"


async def test_an_answer_is_not_made_before_the_peer_takes_it(server: EchoServer) -> None:
    """However much room the peer has promised: it is kept by neither side."""
    async with server.channel() as channel, http2_peer(server.address) as peer:
        peer.send(frame(SETTINGS, 0, 0, (4).to_bytes(2) + (2**31 - 1).to_bytes(4)))
        peer.send(frame(WINDOW_UPDATE, 0, 0, (2**31 - 65_536).to_bytes(4)))
        peer.call("/test.Echo/Flood", message(b"20000"))  # 200 MB
        unary: Any = channel.unary_unary("/test.Echo/Unary")
        before = -1
        while server.echo.sent != before or not before:
            before = server.echo.sent
            for _ in range(50):
                assert await unary(b"x") == b"x"
        assert server.echo.sent * 10_000 < MOST_BYTES


@pytest.mark.parametrize("transport", ["http2"])
async def test_other_work_goes_on_between_many_small_messages(server: EchoServer) -> None:
    answered = 0

    async def count() -> None:
        nonlocal answered
        while True:
            await asyncio.sleep(0)
            answered += 1

    async with http2_peer(server.address) as peer:
        call = peer.call("/test.Echo/Later", None)
        peer.send(frame(DATA, 1, call, message(b"") * 3000))
        await server.echo.until(lambda: server.echo.seen["Later began"] == 1)
        peer.send(frame(PING, 0, 0, bytes(8)))
        await peer.until(PING)  # the messages have come
        counting = asyncio.create_task(count())
        server.echo.go_on.set()
        assert (await peer.status_of(call))["grpc-status"] == "0"
        counting.cancel()
    assert answered > 40


@pytest.mark.parametrize("transport", ["http2"])
async def test_a_peer_that_does_not_take_the_rest_is_given_up(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifetime, "_CLOSE_SECONDS", 0.1)
    monkeypatch.setattr(native, "_LONGEST_GRACE", 0.1)
    settings = {"connection_age_seconds": 0.3}
    async with echo_server(transport, **settings) as server, http2_peer(server.address) as peer:
        peer.send(frame(SETTINGS, 0, 0, (4).to_bytes(2) + (2**31 - 1).to_bytes(4)))
        peer.send(frame(WINDOW_UPDATE, 0, 0, (2**31 - 65_536).to_bytes(4)))
        peer.call("/test.Echo/Flood", message(b"20000"))
        await server.echo.until(lambda: server.echo.seen["Flood cancelled"] == 1)


@pytest.mark.parametrize("transport", ["http2"])
async def test_a_little_room_is_told_to_few_of_many_streams(
    server: EchoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = 0
    on_sendable = Stream.on_sendable

    def count(stream: Stream) -> None:
        nonlocal told
        told += 1
        on_sendable(stream)

    monkeypatch.setattr(Stream, "on_sendable", count)
    async with http2_peer(server.address) as peer:
        peer.send(frame(SETTINGS, 0, 0, (4).to_bytes(2) + (2**31 - 1).to_bytes(4)))
        calls = [peer.call("/test.Echo/Flood", message(b"1")) for _ in range(200)]
        for _ in range(200):
            peer.send(frame(WINDOW_UPDATE, 0, 0, (1).to_bytes(4)))
        peer.send(frame(PING, 0, 0, bytes(8)))
        await peer.until(PING)
        for call in calls[::2]:
            peer.send(frame(RESET, 0, call, (8).to_bytes(4)))
        peer.send(frame(WINDOW_UPDATE, 0, 0, (10_005 * 200).to_bytes(4)))
        assert (await peer.status_of(calls[-1]))["grpc-status"] == "0"
    assert told < 2000
