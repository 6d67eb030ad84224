"""Connections: their age, keepalive, vanished and hostile peers, and the end of the listener."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from support.clients.http2_peer import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    PRIORITY,
    RESET,
    SETTINGS,
    WINDOW_UPDATE,
    Http2Peer,
    frame,
    http2_peer,
    message,
)
from support.deadlines import DEADLINE_SECONDS
from support.services.echo import EchoServer, echo_server

from service.listening.http2 import lifetime

Code = grpc.StatusCode


def unary(channel: grpc.aio.Channel, name: str = "Unary") -> Any:
    return channel.unary_unary(f"/test.Echo/{name}")


@pytest.mark.settings(connection_age_seconds=0.3)
async def test_no_call_is_lost_when_a_connection_is_too_old(server: EchoServer) -> None:
    """Several clients call all the time, on connections that are renewed some ten times."""
    loop = asyncio.get_running_loop()
    end = loop.time() + 3
    connections = set()

    async def ask(channel: grpc.aio.Channel) -> None:
        call = unary(channel)
        while loop.time() < end:
            made = call(b"x")
            assert await made == b"x"
            connections.add(made)  # keeps it from being collected while others run
            connections.clear()

    channels = [server.channel() for _ in range(4)]
    await asyncio.gather(*(ask(channel) for channel in channels for _ in range(3)))
    for channel in channels:
        await channel.close()


@pytest.mark.settings(connection_age_seconds=0.2)
async def test_a_stream_goes_on_while_its_connection_is_drained(server: EchoServer) -> None:
    async with http2_peer(server.address) as peer:
        call = peer.call("/test.Echo/Echo", message(b"before"), ends=False)
        goaway = await peer.until(GOAWAY)
        peer.answers_pings = False
        assert goaway is not None
        assert goaway.payload[:8] == (2**31 - 1).to_bytes(4) + bytes(4)  # all calls, no error
        while (ping := await peer.until(PING)) is not None and ping.flags:
            pass
        assert ping is not None
        late = peer.call("/test.Echo/Echo", message(b"late"), ends=False)
        peer.send(frame(PING, 1, 0, ping.payload))
        goaway = await peer.until(GOAWAY)
        assert goaway is not None
        assert int.from_bytes(goaway.payload[:4]) == late
        answers: list[bytes] = []
        for each in (call, late):
            peer.send(frame(DATA, 0, each, message(b"after")))
        while answers.count(b"after") < 2:
            received = await peer.until(DATA)
            assert received is not None
            answers.append(received.payload[5:])
        for each in (call, late):
            peer.send(frame(DATA, 1, each))
        assert await peer.until(GOAWAY) is None  # the connection ends with its last call


@pytest.mark.settings(ping_seconds=0.01)
async def test_a_client_that_keeps_its_connection_alive_is_served(server: EchoServer) -> None:
    options = (
        ("grpc.keepalive_time_ms", 100),
        ("grpc.keepalive_timeout_ms", 5000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    )
    async with server.channel(*options) as channel:
        waiting = unary(channel, "Wait")(b"x")
        await server.echo.until(lambda: server.echo.seen["Wait began"] == 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting), 1)
        server.echo.go_on.set()
        assert await waiting == b"x"
        assert await unary(channel)(b"y") == b"y"


@pytest.mark.parametrize("transport", ["http2"])
async def test_a_peer_that_has_vanished_without_a_word_is_given_up(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifetime, "_DEAD_AFTER_SECONDS", (0.2, 0.2))
    async with echo_server(transport) as server, http2_peer(server.address) as peer:
        peer.answers_pings = False
        peer.call("/test.Echo/Wait")
        await server.echo.until(lambda: server.echo.seen["Wait began"] == 1)
        assert await peer.until(PING) is not None
        assert await peer.until(GOAWAY) is None
        assert server.closed == {"no_ping_answer": 1}
        await server.echo.until(lambda: server.echo.seen["Wait cancelled"] == 1)


def of_a_kind(peer: Http2Peer, kind: str) -> bytes:
    """Many frames of one kind."""
    if "resets" in kind:
        # Of no room at all: then it is the server who has to reset.
        end, value = (WINDOW_UPDATE, 0) if kind == "resets by us" else (RESET, 8)
        for _ in range(100):
            if kind == "resets and refusals":
                peer.call("/none")
            call = peer.call("/test.Echo/Wait")
            peer.send(frame(end, 0, call, value.to_bytes(4)))
    call = peer.call("/test.Echo/Later", None) if kind == "empty data" else 1
    return {
        **dict.fromkeys(("resets", "resets by us", "resets and refusals"), b""),
        "headers of old calls": frame(HEADERS, 5, 1, peer.block("/none")) * 100,
        "settings": frame(SETTINGS, 0, 0) * 100,
        "pings": frame(PING, 0, 0, bytes(8)) * 100,
        "empty data": frame(DATA, 0, call) * 100,
        "priorities": frame(PRIORITY, 0, 1, bytes(5)) * 100,
        "header block": frame(HEADERS, 0, 1, bytes(1000))
        + frame(CONTINUATION, 0, 1, bytes(1000)) * 100,
        "windows": frame(WINDOW_UPDATE, 0, 0, (2**31 - 1).to_bytes(4)) * 2,
        "garbage": random.Random(1).randbytes(10_000),
    }[kind]


async def flood(peer: Http2Peer, kind: str) -> None:
    """Send much of one kind."""
    for _ in range(500):
        peer.send(of_a_kind(peer, kind))
        await peer.flushed()


@pytest.mark.parametrize(
    "kind",
    [
        *("resets", "resets by us", "resets and refusals", "headers of old calls"),
        *("settings", "pings", "empty data"),
        *("priorities", "header block", "windows", "garbage"),
    ],
)
async def test_a_flood_harms_nobody_else(server: EchoServer, kind: str) -> None:
    async with server.channel() as channel, http2_peer(server.address) as peer:
        flooding = asyncio.create_task(flood(peer, kind))
        answered = 0
        while not flooding.done() or not answered:
            assert await unary(channel)(b"x", timeout=DEADLINE_SECONDS) == b"x"
            answered += 1
        await flooding
        if server.is_native:
            while await peer.read() is not None:  # the connection ends
                pass
            assert server.closed.total() == 1  # and is counted, by its reason


@pytest.mark.parametrize("seed", range(20))
async def test_frames_of_any_content_harm_nobody(server: EchoServer, seed: int) -> None:
    generator = random.Random(seed)
    async with server.channel() as channel, http2_peer(server.address) as peer:
        for _ in range(100):
            kind, flags = generator.randrange(11), generator.choice([0, 1, 4, 5, 8, 0x20, 0xFF])
            payload = generator.randbytes(generator.choice([0, 4, 5, 6, 8, 9, 100]))
            peer.send(frame(kind, flags, generator.choice([0, 1, 1, 2, 3, 2**31 - 1]), payload))
            if generator.random() < 0.3:
                peer.call("/test.Echo/Unary", message(b"x"))
            await peer.flushed()
        assert await unary(channel)(b"x", timeout=DEADLINE_SECONDS) == b"x"


@pytest.mark.parametrize("transport", ["http2"])  # gRPC's core counts calls that have ended
@pytest.mark.settings(calls_per_connection=5)
async def test_calls_beyond_the_number_allowed_wait_at_the_client(server: EchoServer) -> None:
    async with server.channel() as channel:
        await unary(channel)(b"")  # the client knows the number
        calls = [unary(channel, "Wait")(b"%d" % number) for number in range(20)]
        await server.echo.until(lambda: server.echo.seen["Wait began"] == 5)
        server.echo.go_on.set()
        assert await asyncio.gather(*calls) == [b"%d" % number for number in range(20)]
    async with http2_peer(server.address) as peer:
        server.echo.go_on.clear()
        calls_of_peer = [peer.call("/test.Echo/Wait") for _ in range(6)]
        assert await peer.status_of(calls_of_peer[-1]) == {"reset": "7"}  # REFUSED_STREAM


@pytest.mark.settings(drain_seconds=10)
async def test_a_call_in_progress_is_answered_while_the_listener_stops(
    server: EchoServer,
) -> None:
    async with server.channel() as channel, server.channel() as other:
        waiting = unary(channel, "Wait")(b"x")
        stream: Any = other.stream_stream("/test.Echo/Echo")()
        await stream.write(b"y")
        assert await stream.read() == b"y"
        await server.echo.until(lambda: server.echo.seen["Wait began"] == 1)
        stopping = asyncio.create_task(server.server.stop())
        assert await stream.code() is Code.UNAVAILABLE
        late = unary(server.channel())(b"late")
        assert await late.code() is Code.UNAVAILABLE
        server.echo.go_on.set()
        assert await waiting == b"x"
        await stopping


async def test_a_call_that_outlasts_the_drain_ends_as_unavailable(server: EchoServer) -> None:
    async with server.channel() as channel:
        waiting = unary(channel, "Wait")(b"x")
        await server.echo.until(lambda: server.echo.seen["Wait began"] == 1)
        await server.server.stop()
        assert await waiting.code() is Code.UNAVAILABLE


async def test_a_caller_that_does_not_read_does_not_hold_up_the_stop(server: EchoServer) -> None:
    async with http2_peer(server.address) as peer:
        peer.call("/test.Echo/Flood", message(b"100000"))
        await server.echo.until(lambda: server.echo.sent > 3)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await server.server.stop()


async def test_a_unix_socket_serves_and_is_removed(transport: str, tmp_path: Any) -> None:
    path = tmp_path / "kvatlas.sock"
    for _ in range(2):
        async with (
            echo_server(transport, listen=[f"unix:{path}", "127.0.0.1:0"]) as server,
            server.channel() as channel,
        ):
            assert await unary(channel)(b"x") == b"x"
            assert server.server.addresses[1].rpartition(":")[2] != "0"
        assert not path.exists()


async def test_health_is_told_and_watched(server: EchoServer) -> None:
    async with server.channel() as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        assert (await stub.Check(health_pb2.HealthCheckRequest(service="test.Echo"))).status == 1
        watching = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await watching.read()).status == 1
        server.server.become_lame_duck()
        assert (await watching.read()).status == 2
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == 2
        assert await unary(channel)(b"x") == b"x"
        watching.cancel()


async def test_the_services_are_described(server: EchoServer) -> None:
    async with server.channel() as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
        call = stub.ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        names = {each.name for each in (await call.read()).list_services_response.service}
        assert {"test.Echo", "grpc.health.v1.Health"} <= names
        await call.done_writing()
        assert await call.code() is Code.OK


async def test_answers_to_a_peer_that_has_just_left_are_no_news(
    server: EchoServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is written before the loss of the connection is told."""
    host, _, port = server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    peer = Http2Peer(reader, writer)
    for _ in range(50):
        peer.call("/test.Echo/Wait")
    await server.echo.until(lambda: server.echo.seen["Wait began"] == 50)
    opened: socket.socket = writer.get_extra_info("socket")
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    await asyncio.sleep(0)
    server.echo.go_on.set()
    async with server.channel() as channel:
        assert await unary(channel)(b"x") == b"x"
    assert not caplog.records


async def test_a_client_written_in_go_is_answered(server: EchoServer) -> None:
    """`buf curl` asks by reflection what the service looks like."""

    def ask(*arguments: str) -> str:
        done = subprocess.run(
            [
                *(str(Path(sys.executable).parent / "buf"), "curl", "--protocol=grpc"),
                *("--http2-prior-knowledge", "--data", '{"service": "test.Echo"}', *arguments),
                f"http://{server.address}/grpc.health.v1.Health/Check",
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
        )
        return done.stdout

    assert "SERVING" in await asyncio.to_thread(ask)
    assert "SERVING" in await asyncio.to_thread(ask, "--header", "a: b", "--verbose")


@pytest.mark.parametrize("transport", ["http2"])
@pytest.mark.settings(connections=1, calls_per_connection=1)
async def test_what_is_beyond_a_limit_is_counted_by_it(server: EchoServer) -> None:
    async with http2_peer(server.address) as peer, http2_peer(server.address) as second:
        peer.call("/test.Echo/Wait")
        await server.echo.until(lambda: server.echo.seen["Wait began"] == 1)
        assert "reset" in await peer.status_of(peer.call("/test.Echo/Wait"))
        assert server.refused == {"calls_per_connection": 1}
        assert await second.read() is None
        assert server.closed == {"connections": 1}
        server.echo.go_on.set()
