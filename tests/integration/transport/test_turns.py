"""Callers are answered while many others send header blocks that take long to read."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from support.clients.http2_peer import (
    END_HEADERS,
    END_STREAM,
    HEADERS,
    RESET,
    frame,
    http2_peer,
    message,
)
from support.deadlines import DEADLINE_SECONDS
from support.services.echo import EchoServer

from service.listening.http2 import encode

CALLS = 20
PAIRS = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/none")]
KIND = (b"content-type", b"application/grpc")


def long_blocks(connection: int) -> bytes:
    """Requests whose headers are new each time, and many."""
    return b"".join(
        frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, encode(pairs, begins=False))
        for number in range(CALLS)
        for pairs in [
            [*PAIRS, KIND, (b"x", b"%d %d" % (connection, number)), *[(b"a", b"")] * 1500]
        ]
    )


@pytest.mark.parametrize("transport", ["http2"])
@pytest.mark.settings(connections=100)
async def test_short_calls_pass_the_long_header_blocks_of_others(server: EchoServer) -> None:
    refused, has_begun = Counter[int](), asyncio.Event()

    async def ask_much(connection: int) -> None:
        async with http2_peer(server.address) as peer:
            peer.send(long_blocks(connection))
            for number in range(CALLS):
                assert "grpc-status" in await peer.status_of(2 * number + 1)
                refused[connection] += 1
                has_begun.set()

    waited = []
    async with asyncio.timeout(DEADLINE_SECONDS), asyncio.TaskGroup() as group:
        for connection in range(20):
            group.create_task(ask_much(connection))
        async with http2_peer(server.address) as peer:
            await has_begun.wait()
            for number in range(10):
                before = refused.total()
                call = peer.call("/test.Echo/Unary", message(b"x"), ("number", str(number)))
                assert (await peer.status_of(call))["grpc-status"] == "0"
                waited.append(refused.total() - before)
    assert refused.total() == 20 * CALLS
    assert max(waited) < 40


@pytest.mark.parametrize("transport", ["http2"])
async def test_a_connection_that_is_lost_while_it_waits_holds_up_nobody(server: EchoServer) -> None:
    async with http2_peer(server.address) as peer:
        for connection in range(10):
            async with http2_peer(server.address) as other:
                other.send(long_blocks(connection) + frame(RESET, 0, 99, bytes(4)))
                await other.flushed()
        assert (await peer.status_of(peer.call("/test.Echo/Unary")))["grpc-status"] == "0"
