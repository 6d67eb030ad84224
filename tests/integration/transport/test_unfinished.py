"""Requests that never end take a bounded amount of memory, and no longer than their deadline."""

from __future__ import annotations

import asyncio
import zlib
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from support.clients.http2_peer import DATA, Http2Peer, frame, http2_peer, message
from support.deadlines import DEADLINE_SECONDS
from support.services.echo import ARRIVING, LIMIT, EchoServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from service.listening.http2.bodies import Bodies

EXHAUSTED = str(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
LATE = str(grpc.StatusCode.DEADLINE_EXCEEDED.value[0])
PART = 16_384
only_http2 = pytest.mark.parametrize("transport", ["http2"])


def bodies(server: EchoServer) -> Bodies:
    """What the listener keeps of requests."""
    transport: Any = server.server._transport
    kept: Bodies = transport._server._requests.bodies
    return kept


@pytest.fixture
async def peers(server: EchoServer) -> AsyncIterator[list[Http2Peer]]:
    """Several connections."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(http2_peer(server.address)) for _ in range(4)]


async def send_part(peer: Http2Peer, path: str, size: int) -> int:
    """Send the first `size` bytes of a message of LIMIT bytes."""
    call = peer.call(path, None)
    peer.send(frame(DATA, 0, call, (LIMIT).to_bytes(5)))
    for _ in range(size // PART):
        peer.send(frame(DATA, 0, call, bytes(PART)))
        await peer.flushed()
    return call


@only_http2
@pytest.mark.parametrize("method", ["Unary", "Echo"])
async def test_the_oldest_of_many_unfinished_requests_give_way(
    server: EchoServer, peers: list[Http2Peer], method: str
) -> None:
    """They take 96 MB, of 36 that they may; meanwhile whole ones are answered, also large ones."""
    async with server.channel() as channel:
        unary: Any = channel.unary_unary("/test.Echo/Unary")
        sent = []
        for peer in peers * 3:
            sent.append((peer, await send_part(peer, f"/test.Echo/{method}", 8_000_000)))
            assert len(await unary(bytes(LIMIT - 1000))) == LIMIT - 1000
            assert bodies(server).size <= ARRIVING
        for peer, call in sent[:7]:
            assert (await peer.status_of(call))["grpc-status"] == EXHAUSTED
        assert server.refused["no_room"] >= 7
    for peer in peers:
        peer.close()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while bodies(server).size:  # noqa: ASYNC110 - nothing tells when they are gone
            await asyncio.sleep(0)


@only_http2
async def test_calls_without_a_message_take_room_too(
    server: EchoServer, peers: list[Http2Peer]
) -> None:
    for peer in peers:
        for _ in range(1000):
            peer.call("/test.Echo/Unary", None)
        await peer.flushed()
        ping = frame(6, 0, 0, b"all sent")
        peer.send(ping)
        await peer.until(6)
    assert bodies(server).size >= 4000 * 4096


@only_http2
async def test_what_many_requests_become_when_decompressed_is_bounded(
    server: EchoServer, peers: list[Http2Peer]
) -> None:
    """80 requests of 9 kB, of 9 MB in fact: those that there is room for are answered."""
    packed = message(zlib.compress(bytes(LIMIT - 1000)), 1)
    most, statuses = 0, []

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, bodies(server).size)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    encoding = ("grpc-encoding", "deflate")
    calls = [
        (peer, peer.call("/test.Echo/Crash", packed, encoding)) for peer in peers for _ in range(20)
    ]
    for peer, call in calls:
        statuses.append((await peer.status_of(call))["grpc-status"])
    watching.cancel()
    assert 3_000_000 < most <= ARRIVING
    assert {EXHAUSTED, "2"} == set(statuses)  # refused, or answered by the method
    assert not bodies(server).size


@pytest.mark.parametrize("method", ["Unary", "Echo", "Flood"])
async def test_a_call_whose_request_never_ends_ends_at_its_deadline(
    server: EchoServer, method: str
) -> None:
    async with http2_peer(server.address) as peer:
        call = peer.call(
            f"/test.Echo/{method}", message(b"x")[:-1], ("grpc-timeout", "100m"), ends=False
        )
        ended = await peer.status_of(call)
        assert ended.get("grpc-status") == LATE or "reset" in ended
