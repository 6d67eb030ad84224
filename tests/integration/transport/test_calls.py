"""Calls of grpcio's clients: answers, errors, deadlines, metadata, compression, limits."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import grpc
import pytest
from support.clients.http2_peer import http2_peer, message
from support.deadlines import DEADLINE_SECONDS
from support.services.echo import DETAILS, LIMIT, EchoServer

Code = grpc.StatusCode


def method(channel: grpc.aio.Channel, name: str) -> Any:
    return channel.unary_unary(f"/test.Echo/{name}")


def both_ways(channel: grpc.aio.Channel, name: str = "Echo") -> Any:
    return channel.stream_stream(f"/test.Echo/{name}")


def flooding(channel: grpc.aio.Channel) -> Any:
    return channel.unary_stream("/test.Echo/Flood")


def over(server: EchoServer) -> int:
    """How many calls of `Echo` have ended, by cancellation or because their requests ended."""
    return server.echo.seen["Echo cancelled"] + server.echo.seen["Echo ended"]


@pytest.mark.parametrize("size", [0, 1, 33_000, 65_531, 65_532, 1_000_000, LIMIT])
async def test_a_request_of_any_size_is_answered(server: EchoServer, size: int) -> None:
    request = bytes(range(256)) * (size // 256) + bytes(size % 256)
    async with server.channel() as channel:
        assert await method(channel, "Unary")(request) == request


async def test_a_synchronous_client_is_answered(server: EchoServer) -> None:
    def ask() -> tuple[bytes, list[bytes], list[bytes]]:
        with grpc.insecure_channel(server.address) as made:
            channel: Any = made
            one = channel.unary_unary("/test.Echo/Unary")(b"one", timeout=DEADLINE_SECONDS)
            many = channel.unary_stream("/test.Echo/Flood")(b"20", timeout=DEADLINE_SECONDS)
            echo = channel.stream_stream("/test.Echo/Echo")(iter([b"a", b"b"]))
            return one, list(many), list(echo)

    one, many, echo = await asyncio.to_thread(ask)
    assert one == b"one"
    assert [int.from_bytes(each[:4]) for each in many] == list(range(20))
    assert echo == [b"a", b"b"]


async def test_calls_under_way_together_get_their_own_answers(server: EchoServer) -> None:
    async with server.channel() as channel:
        requests = [b"%d" % number * 1000 for number in range(300)]
        assert await asyncio.gather(*map(method(channel, "Unary"), requests)) == requests


async def test_a_stream_answers_each_request_before_the_next_is_sent(server: EchoServer) -> None:
    async with server.channel() as channel:
        call = both_ways(channel)()
        for number in range(50):
            await call.write(b"%d" % number)
            assert await call.read() == b"%d" % number
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is Code.OK
        assert server.echo.seen["Echo ended"] == 1


async def test_messages_of_a_stream_are_apart_however_they_are_cut(server: EchoServer) -> None:
    sizes = [0, 1, 70_000, 5, 200_000, 0, 16_384, 3]
    async with server.channel() as channel:
        call = both_ways(channel)(bytes(size) for size in sizes)
        assert [len(each) async for each in call] == sizes


@pytest.mark.parametrize("path", ["/test.Echo/None", "/none/Unary", "/", "/test.Echo/Unary/"])
async def test_an_unknown_method_is_named_as_such(server: EchoServer, path: str) -> None:
    async with server.channel() as channel:
        method_of_path: Any = channel.unary_unary(path)
        call = method_of_path(b"")
        assert await call.code() is Code.UNIMPLEMENTED
        assert "no such method at this address" in await call.details()


@pytest.mark.parametrize(
    "text", ["plain", "100 %, 50%25", "a\nb\x00", "ünïcödé 🚀", "", "long" * 1000]
)
async def test_an_error_has_its_text_and_its_details(server: EchoServer, text: str) -> None:
    async with server.channel() as channel:
        call = method(channel, "Fail")(text.encode())
        assert (await call.code(), await call.details()) == (Code.NOT_FOUND, text)
        assert ("grpc-status-details-bin", DETAILS) in tuple(await call.trailing_metadata())


async def test_an_unexpected_error_ends_its_call_alone(server: EchoServer) -> None:
    async with server.channel() as channel:
        assert await method(channel, "Crash")(b"").code() is Code.UNKNOWN
        assert await method(channel, "Unary")(b"on") == b"on"


async def test_a_deadline_cancels_the_call_and_is_seen_in_it(server: EchoServer) -> None:
    async with server.channel() as channel:
        await method(channel, "Unary")(b"", timeout=60)
        assert server.echo.time_remaining is not None
        assert 50 < server.echo.time_remaining <= 60.1
        await method(channel, "Unary")(b"")
        assert not server.echo.time_remaining
        call = method(channel, "Wait")(b"", timeout=0.1)
        assert await call.code() is Code.DEADLINE_EXCEEDED
        await server.echo.until(lambda: server.echo.seen["Wait cancelled"] == 1)


async def test_a_deadline_ends_the_call_of_a_client_that_does_not_cancel(
    server: EchoServer,
) -> None:
    async with http2_peer(server.address) as peer:
        call = peer.call("/test.Echo/Wait", message(b""), ("grpc-timeout", "50m"))
        ended = await peer.status_of(call)
        # gRPC's core resets the stream, which says nothing more.
        assert ended.get("grpc-status") == "4" or "reset" in ended
        await server.echo.until(lambda: server.echo.seen["Wait cancelled"] == 1)


async def test_a_cancelled_call_is_cancelled_here(server: EchoServer) -> None:
    async with server.channel() as channel:
        waiting = method(channel, "Wait")(b"")
        await server.echo.until(lambda: server.echo.seen["Wait began"] == 1)
        waiting.cancel()
        await server.echo.until(lambda: server.echo.seen["Wait cancelled"] == 1)
        echo = both_ways(channel)()
        await echo.write(b"x")
        await echo.read()
        echo.cancel()
        # grpc.aio lets the requests end instead.
        await server.echo.until(lambda: over(server) == 1)
        flood = flooding(channel)(b"100000")
        await flood.read()
        flood.cancel()
        await server.echo.until(lambda: server.echo.seen["Flood cancelled"] == 1)
        assert await method(channel, "Unary")(b"on") == b"on"


async def test_calls_of_a_lost_connection_are_cancelled(server: EchoServer) -> None:
    async with http2_peer(server.address) as peer:
        peer.call("/test.Echo/Wait")
        peer.call("/test.Echo/Echo", message(b"x"), ends=False)
        await server.echo.until(
            lambda: server.echo.seen["Wait began"] == server.echo.seen["Echo began"] == 1
        )
    await server.echo.until(lambda: server.echo.seen["Wait cancelled"] == over(server) == 1)


async def test_metadata_goes_both_ways(server: EchoServer) -> None:
    sent: tuple[tuple[str, str | bytes], ...] = (
        *(("text", "a b, c"), ("twice", "1"), ("twice", "2")),
        *(("any-bin", bytes(range(256))), ("none-bin", b"")),
    )
    async with server.channel() as channel:
        await method(channel, "Unary")(b"", metadata=sent)
        received = [pair for pair in server.echo.received if pair[0] != "user-agent"]
        assert sorted(received, key=str) == sorted(sent, key=str)
        call = method(channel, "Metadata")(b"x")
        assert await call == b"x"
        assert {("first", "1"), ("first-bin", b"\x00\xff")} <= set(await call.initial_metadata())
        assert {("last", "2"), ("last-bin", b"\xfe")} <= set(await call.trailing_metadata())


@pytest.mark.parametrize("transport", ["http2"])  # grpcio does not as the protocol asks
@pytest.mark.parametrize("joined", ["AP8,/g==", "AP8=, /g"])
async def test_binary_metadata_that_a_proxy_has_joined_is_split(
    server: EchoServer, joined: str
) -> None:
    async with http2_peer(server.address) as peer:
        stream = peer.call("/test.Echo/Unary", message(b""), ("any-bin", joined))
        assert (await peer.status_of(stream))["grpc-status"] == "0"
        assert server.echo.received == [("any-bin", b"\x00\xff"), ("any-bin", b"\xfe")]


async def test_metadata_beyond_16_kib_is_refused_and_the_connection_goes_on(
    server: EchoServer,
) -> None:
    async with server.channel() as channel:
        for size, expected in ((15_000, Code.OK), (17_000, Code.RESOURCE_EXHAUSTED)) * 3:
            call = method(channel, "Unary")(b"", metadata=(("x", "y" * size),))
            assert await call.code() is expected


@pytest.mark.parametrize("transport", ["http2"])
async def test_many_binary_values_that_were_joined_count_as_if_they_came_alone(
    server: EchoServer,
) -> None:
    async with http2_peer(server.address) as peer:
        for count, status in ((300, Code.OK), (1000, Code.RESOURCE_EXHAUSTED)):
            stream = peer.call("/test.Echo/Unary", message(b""), ("any-bin", "," * count))
            assert (await peer.status_of(stream))["grpc-status"] == str(status.value[0])


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_requests_may_be_compressed(
    server: EchoServer, compression: grpc.Compression
) -> None:
    request = b"compressible " * 100_000
    async with server.channel() as channel:
        call = method(channel, "Unary")(request, compression=compression)
        assert await call == request
        stream = both_ways(channel)(iter([request, b"", b"short"]), compression=compression)
        assert [each async for each in stream] == [request, b"", b"short"]


async def test_a_small_message_that_is_large_when_decompressed_is_refused(
    server: EchoServer,
) -> None:
    bomb = bytes(LIMIT + 1)
    async with server.channel() as channel:
        for call in (
            method(channel, "Unary")(bomb, compression=grpc.Compression.Gzip),
            both_ways(channel)(iter([bomb]), compression=grpc.Compression.Gzip),
        ):
            assert await call.code() is Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("transport", ["http2"])  # gRPC's core lets some of these calls hang
@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("br", message(b"x", compressed=1), "12"),
        ("gzip", message(b"not gzip", compressed=1), "13"),
        ("gzip", message(gzip.compress(b"whole")[:-9], compressed=1), "13"),
        ("identity", message(b"x", compressed=1), "13"),
        ("identity", message(b"whole")[:-1], "13"),
        ("identity", b"", "12"),
        ("identity", message(b"one") + message(b"two"), "12"),
    ],
    ids=["unknown", "garbage", "half", "undeclared", "incomplete", "none", "two"],
)
async def test_a_body_that_is_not_one_message_is_refused(
    server: EchoServer, encoding: str, body: bytes, status: str
) -> None:
    async with http2_peer(server.address) as peer:
        ended = await peer.status_of(
            peer.call("/test.Echo/Unary", body, ("grpc-encoding", encoding))
        )
        assert ended["grpc-status"] == status
        after = await peer.status_of(peer.call("/test.Echo/Unary"))
        assert after["grpc-status"] == "0"


async def test_a_message_beyond_the_limit_is_refused(server: EchoServer) -> None:
    async with server.channel() as channel:
        call = method(channel, "Unary")(bytes(LIMIT + 1))
        assert await call.code() is Code.RESOURCE_EXHAUSTED
        stream = both_ways(channel)()
        await stream.write(b"small")
        assert await stream.read() == b"small"
        await stream.write(bytes(LIMIT + 1))
        assert await stream.code() is Code.RESOURCE_EXHAUSTED
        if server.is_native:  # gRPC's core does not tell
            assert server.refused == {"message_too_large": 2}
        assert await method(channel, "Unary")(b"on") == b"on"


@pytest.mark.parametrize("transport", ["http2"])
async def test_a_request_that_is_no_call_is_refused(server: EchoServer) -> None:
    async with http2_peer(server.address) as peer:
        call = peer.call("/test.Echo/Unary", message(b""), ("content-type", "text/html"))
        ended = await peer.status_of(call)
        assert ended[":status"] == "415"
