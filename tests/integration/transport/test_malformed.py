"""What RFC 9113 calls a malformed request is reset, and no other one."""

from __future__ import annotations

import asyncio

import pytest
from support.clients.http2_peer import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PATH,
    PSEUDO,
    REGULAR,
    block,
    frame,
    goodbye,
    http2_peer,
    is_answered,
    message,
    usual,
)
from support.services.echo import EchoServer

PROTOCOL_ERROR, CALM = 1, 11

pytestmark = pytest.mark.parametrize("transport", ["http2"])


MALFORMED = {
    "no method": block(*PSEUDO[1:], *REGULAR),
    "no scheme": block(PSEUDO[0], *PSEUDO[2:], *REGULAR),
    "no path": block(*PSEUDO[:2], *REGULAR),
    "empty path": block(*PSEUDO[:2], (b":path", b""), *REGULAR),
    "two paths": block(*PSEUDO, PSEUDO[2], *REGULAR),
    "unknown pseudo-header": block(*PSEUDO, (b":protocol", b"x"), *REGULAR),
    "status": block((b":status", b"200"), *PSEUDO, *REGULAR),
    "pseudo-header after others": block(*PSEUDO[:3], *REGULAR, PSEUDO[3]),
    "tunnel with a path": block((b":method", b"CONNECT"), *PSEUDO[1:]),
    "upper case": usual((b"Name", b"x")),
    "no name": usual((b"", b"x")),
    **{
        f"{octet!r} in a name": usual((b"a" + octet, b"x"))
        for octet in (b" ", b":", b"\0", b"\xe4")
    },
    **{f"{octet!r} in a value": usual((b"a", b"x%by" % octet)) for octet in (b"\0", b"\r", b"\n")},
    "null in a path": block(*PSEUDO[:2], (b":path", PATH + b"\0"), *REGULAR),
    "connection": usual((b"connection", b"close")),
    "transfer-encoding": usual((b"transfer-encoding", b"chunked")),
    "keep-alive": usual((b"keep-alive", b"1")),
    "upgrade": usual((b"upgrade", b"h2c")),
    "proxy-connection": usual((b"proxy-connection", b"x")),
    "te": block(*PSEUDO, (b"te", b"gzip"), REGULAR[1]),
    "length too short": usual((b"content-length", b"5")),
    "length too long": usual((b"content-length", b"7")),
    "length of no number": usual((b"content-length", b"six")),
    "two lengths": usual((b"content-length", b"6"), (b"content-length", b"6")),
}


@pytest.mark.parametrize("kind", MALFORMED)
async def test_a_malformed_request_is_reset_and_no_other(server: EchoServer, kind: str) -> None:
    async with http2_peer(server.address) as peer:
        for number in (1, 5):  # the second time the headers come from the cache
            peer.send(frame(HEADERS, END_HEADERS, number, MALFORMED[kind]))
            peer.send(frame(DATA, END_STREAM, number, message(b"x")))
            assert await peer.status_of(number) == {"reset": str(PROTOCOL_ERROR)}
            assert await is_answered(peer, number + 2)
        assert server.refused == {"malformed": 2}


@pytest.mark.parametrize(
    "more",
    [
        (b"content-length", b"6"),
        (b"a", b""),
        (b"a", b"x y"),
        *((b"a", value) for value in (b" x", b"x ", b"\tx", b"x\t", b" ")),
        (b"!#$%&'*+-.^_`|~09az", b"\xff\t\x7f"),
    ],
)
async def test_what_is_rare_but_allowed_is_answered(
    server: EchoServer, more: tuple[bytes, bytes]
) -> None:
    async with http2_peer(server.address) as peer:
        peer.send(frame(HEADERS, END_HEADERS, 1, usual(more)))
        peer.send(frame(DATA, 0, 1, message(b"x")))
        peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block((b"last", b"x"))))
        assert (await peer.status_of(1))["grpc-status"] == "0"


async def test_a_tunnel_is_not_made(server: EchoServer) -> None:
    async with http2_peer(server.address) as peer:
        tunnel = block((b":method", b"CONNECT"), (b":authority", b"x:1"))
        peer.send(frame(HEADERS, END_HEADERS, 1, tunnel))
        assert (await peer.status_of(1))[":status"] == "405"


@pytest.mark.parametrize("trailers", [PSEUDO[:1], [(b"Name", b"x")], [(b"te", b"gzip")]])
async def test_malformed_trailers_reset_their_stream_and_cancel_its_call(
    server: EchoServer, trailers: list[tuple[bytes, bytes]]
) -> None:
    async with http2_peer(server.address) as peer:
        call = frame(
            HEADERS, END_HEADERS, 1, block(*PSEUDO[:2], (b":path", b"/test.Echo/Echo"), *REGULAR)
        )
        peer.send(call + frame(DATA, 0, 1, message(b"x")))
        assert await peer.until(DATA) is not None
        peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block(*trailers)))
        assert await peer.status_of(1) == {"reset": str(PROTOCOL_ERROR)}
        await server.echo.until(lambda: server.echo.seen["Echo began"] == 1)
        assert await is_answered(peer, 3)


async def test_resets_of_malformed_requests_are_counted(server: EchoServer) -> None:
    async with http2_peer(server.address) as peer:
        reading = asyncio.create_task(goodbye(peer))
        for number in range(1, 200_000, 2):
            peer.send(frame(HEADERS, END_HEADERS, number, MALFORMED["no path"]))
            if number % 200 == 1:
                await peer.flushed()
            if reading.done():
                break
        assert (await reading)[0] == CALM
