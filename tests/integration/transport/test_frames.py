"""What RFC 9113 calls an error ends its stream or its connection, and no other."""

from __future__ import annotations

import asyncio
import struct

import pytest
from support.clients.http2_peer import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PRIORITY,
    RESET,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    goodbye,
    http2_peer,
    is_answered,
    message,
    usual,
)
from support.services.echo import EchoServer

PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, CALM = 1, 3, 5, 6, 11
WINDOW, FRAME_SIZE, PUSH = 4, 5, 2

pytestmark = pytest.mark.parametrize("transport", ["http2"])


def settings(name: int, value: int) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, struct.pack(">HI", name, value))


async def test_a_header_block_of_many_table_sizes_is_refused(server: EchoServer) -> None:
    async with http2_peer(server.address) as peer:
        peer.send(frame(HEADERS, END_HEADERS, 1, b"\x20\x3f\xe1\x1f" + usual()))
        peer.send(frame(DATA, END_STREAM, 1, message(b"x")))
        assert (await peer.status_of(1))["grpc-status"] == "0"
        peer.send(frame(HEADERS, END_HEADERS, 3, b"\x20" * 3 + usual()))
        assert (await goodbye(peer))[0] == 9  # COMPRESSION_ERROR


CONNECTION_FAULTS = {
    "push of 2": (settings(PUSH, 2), PROTOCOL_ERROR),
    "window of 2**31": (settings(WINDOW, 2**31), FLOW_CONTROL_ERROR),
    "short frames": (settings(FRAME_SIZE, 2**14 - 1), PROTOCOL_ERROR),
    "long frames": (settings(FRAME_SIZE, 2**24), PROTOCOL_ERROR),
    "half a setting": (frame(SETTINGS, 0, 0, bytes(5)), FRAME_SIZE_ERROR),
    "confirmed settings": (frame(SETTINGS, 1, 0, bytes(6)), FRAME_SIZE_ERROR),
    "settings of a stream": (frame(SETTINGS, 0, 1), PROTOCOL_ERROR),
    "window beyond 2**31 - 1": (
        frame(WINDOW_UPDATE, 0, 1, (2**31 - 1 - 65_535).to_bytes(4)) + settings(WINDOW, 65_536),
        FLOW_CONTROL_ERROR,
    ),
    "no more room": (frame(WINDOW_UPDATE, 0, 0, bytes(4)), PROTOCOL_ERROR),
    "too much room": (frame(WINDOW_UPDATE, 0, 0, (2**31 - 1).to_bytes(4)), FLOW_CONTROL_ERROR),
    "room for an idle stream": (frame(WINDOW_UPDATE, 0, 3, bytes(3) + b"1"), PROTOCOL_ERROR),
    "room for a stream of ours": (frame(WINDOW_UPDATE, 0, 2, bytes(3) + b"1"), PROTOCOL_ERROR),
    "long room": (frame(WINDOW_UPDATE, 0, 0, bytes(5)), FRAME_SIZE_ERROR),
    "idle stream reset": (frame(RESET, 0, 3, bytes(4)), PROTOCOL_ERROR),
    "no stream reset": (frame(RESET, 0, 0, bytes(4)), PROTOCOL_ERROR),
    "short reset": (frame(RESET, 0, 1, bytes(3)), FRAME_SIZE_ERROR),
    "short priority": (frame(PRIORITY, 0, 1, bytes(4)), FRAME_SIZE_ERROR),
    "priority of no stream": (frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL_ERROR),
    "priority after itself": (frame(PRIORITY, 0, 7, b"\0\0\0\7\1"), PROTOCOL_ERROR),
    "headers after themselves": (
        frame(HEADERS, END_HEADERS | 0x20, 3, b"\x80\0\0\3\1" + usual()),
        PROTOCOL_ERROR,
    ),
    "headers with half a priority": (
        frame(HEADERS, END_HEADERS | 0x20, 3, bytes(4)),
        FRAME_SIZE_ERROR,
    ),
    "headers of no stream": (frame(HEADERS, END_HEADERS, 0, usual()), PROTOCOL_ERROR),
    "headers of a stream of ours": (frame(HEADERS, END_HEADERS, 2, usual()), PROTOCOL_ERROR),
    "data of no stream": (frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
    "data of an idle stream": (frame(DATA, 0, 3, b"x"), PROTOCOL_ERROR),
    "more padding than data": (frame(DATA, 8, 1, b"\5abc"), PROTOCOL_ERROR),
    "continued nothing": (frame(CONTINUATION, END_HEADERS, 3, usual()), PROTOCOL_ERROR),
    "a frame within a block": (
        frame(HEADERS, 0, 3, usual()) + frame(PING, 0, 0, bytes(8)),
        PROTOCOL_ERROR,
    ),
    "endless block": (frame(HEADERS, 0, 3) + frame(CONTINUATION, 0, 3) * 11_000, CALM),
    "long block": (frame(HEADERS, 0, 3) + frame(CONTINUATION, 0, 3, bytes(16_000)) * 5, CALM),
    "promise": (frame(5, END_HEADERS, 1, bytes(4)), PROTOCOL_ERROR),
    "ping of a stream": (frame(PING, 0, 1, bytes(8)), PROTOCOL_ERROR),
    "short ping": (frame(PING, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    "answers to no ping": (frame(PING, 1, 0, bytes(8)) * 11_000, CALM),
    "short goaway": (frame(GOAWAY, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    "goaway of a stream": (frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL_ERROR),
    "long frame": (frame(DATA, 0, 1, bytes(64 * 1024 + 1)), FRAME_SIZE_ERROR),
}


@pytest.mark.parametrize("kind", CONNECTION_FAULTS)
async def test_a_fault_of_a_connection_ends_it_and_says_why(server: EchoServer, kind: str) -> None:
    octets, fault = CONNECTION_FAULTS[kind]
    async with http2_peer(server.address) as other, http2_peer(server.address) as peer:
        peer.call("/test.Echo/Wait", None)
        peer.send(octets)
        assert (await goodbye(peer))[0] == fault
        assert await is_answered(other, 1)


@pytest.mark.parametrize("first", [frame(PING, 0, 0, bytes(8)), frame(SETTINGS, 1, 0)])
async def test_the_settings_of_a_peer_come_first(server: EchoServer, first: bytes) -> None:
    host, _, port = server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + first)
    assert b"the settings come first" in await reader.read()
    writer.close()


async def test_data_after_the_end_of_a_request_resets_its_stream(server: EchoServer) -> None:
    async with http2_peer(server.address) as peer:
        peer.call("/test.Echo/Wait")
        peer.send(frame(DATA, 0, 1, b"more"))
        assert await peer.status_of(1) == {"reset": str(STREAM_CLOSED)}
        assert await is_answered(peer, 3)


async def test_a_goaway_of_the_peer_ends_none_of_its_calls(server: EchoServer) -> None:
    async with http2_peer(server.address) as peer:
        call = peer.call("/test.Echo/Wait")
        peer.send(frame(GOAWAY, 0, 0, bytes(8) + b"bye"))
        server.echo.go_on.set()
        assert (await peer.status_of(call))["grpc-status"] == "0"


@pytest.mark.settings(calls_per_connection=1000)
async def test_changes_of_many_windows_are_counted_by_their_number(server: EchoServer) -> None:
    async with http2_peer(server.address) as peer:
        for _ in range(1000):
            peer.call("/test.Echo/Wait", None)
        for change in range(200):
            peer.send(settings(WINDOW, 1000 + change))
        assert (await goodbye(peer))[0] == CALM


async def test_long_settings_are_counted_by_their_length(server: EchoServer) -> None:
    async with http2_peer(server.address) as peer:
        for _ in range(30):
            peer.send(frame(SETTINGS, 0, 0, bytes(60_000)))
        assert (await goodbye(peer))[0] == CALM


async def test_streams_whose_window_opens_again_send_on(server: EchoServer) -> None:
    """They wait for room of their own while that of the connection grows and grows."""
    async with http2_peer(server.address) as peer:
        peer.send(settings(WINDOW, 0))
        calls = [peer.call("/test.Echo/Unary", message(bytes(100))) for _ in range(20)]
        peer.send(frame(WINDOW_UPDATE, 0, 0, (1000).to_bytes(4)) * 50)
        peer.send(frame(PING, 0, 0, bytes(8)))
        while (pong := await peer.until(PING)) is not None and not pong.flags:
            pass
        for call in calls[:10]:
            peer.send(frame(WINDOW_UPDATE, 0, call, (105).to_bytes(4)))
        for call in calls[:10]:
            assert (await peer.status_of(call))["grpc-status"] == "0"
        peer.send(settings(WINDOW, 105))
        for call in calls[10:]:
            assert (await peer.status_of(call))["grpc-status"] == "0"
