"""A client of HTTP/2 that does what no library would: written frame by frame."""

from __future__ import annotations

import asyncio
import struct
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import hpack

from service.listening.http2 import encode
from support.deadlines import DEADLINE_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DATA, HEADERS, PRIORITY, RESET, SETTINGS, _, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATH = b"/test.Echo/Unary"
PSEUDO = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", PATH), (b":authority", b"x"))
REGULAR = ((b"te", b"trailers"), (b"content-type", b"application/grpc"))


class Frame(NamedTuple):
    """A frame that the server sent."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """The octets of a frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def message(payload: bytes, compressed: int = 0) -> bytes:
    """A gRPC message with its prefix."""
    return bytes((compressed,)) + len(payload).to_bytes(4) + payload


def block(*pairs: tuple[bytes, bytes]) -> bytes:
    """A header block, of whatever names and values."""
    return encode(pairs, begins=False)


def usual(*more: tuple[bytes, bytes]) -> bytes:
    """The header block of a call."""
    return block(*PSEUDO, *REGULAR, *more)


class Http2Peer:
    """One connection. Its first frames are sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = hpack.Decoder()
        self._encoder = hpack.Encoder()
        self._next = 1
        self.answers_pings = True
        self.send(PREFACE + frame(SETTINGS, 0, 0))

    def send(self, octets: bytes) -> None:
        """Send octets, whatever they are."""
        self._writer.write(octets)

    async def flushed(self) -> None:
        """Wait until nearly all is sent, or nobody is there."""
        with suppress(ConnectionError):
            await self._writer.drain()

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    def block(self, path: str, more: tuple[tuple[str, str], ...] = ()) -> bytes:
        """The header block of a call."""
        usual = ((":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"))
        kind = (("te", "trailers"), ("content-type", "application/grpc"))
        return self._encoder.encode([*usual, *kind, *more])

    def call(
        self,
        path: str,
        body: bytes | None = message(b""),
        *more: tuple[str, str],
        ends: bool = True,
    ) -> int:
        """Begin a call; with a body of at most 16 KiB. Returns the stream's number."""
        number, self._next = self._next, self._next + 2
        octets = frame(HEADERS, END_HEADERS, number, self.block(path, more))
        if body is not None:
            octets += frame(DATA, END_STREAM if ends else 0, number, body)
        self.send(octets)
        return number

    async def read(self) -> Frame | None:
        """The next frame; None at the end of the connection."""
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3]))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        received = Frame(head[3], head[4], int.from_bytes(head[5:]), payload)
        if received.kind == PING and not received.flags & ACK and self.answers_pings:
            self.send(frame(PING, ACK, 0, payload))
        return received

    async def until(self, kind: int) -> Frame | None:
        """The next frame of a kind; None if the connection ends first."""
        while (received := await self.read()) is not None and received.kind != kind:
            pass
        return received

    async def status_of(self, stream: int) -> dict[str, str]:
        """The headers of the last block of a stream, or {"reset": its reason} or {}."""
        while (received := await self.read()) is not None:
            if received.kind == HEADERS:
                headers = dict(self._decoder.decode(received.payload))
                if received.stream == stream and received.flags & END_STREAM:
                    return {str(name): str(value) for name, value in headers.items()}
            if received.kind == RESET and received.stream == stream:
                return {"reset": str(int.from_bytes(received.payload))}
        return {}


@asynccontextmanager
async def http2_peer(address: str) -> AsyncIterator[Http2Peer]:
    """A connection to host:port, closed in the end."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Http2Peer(reader, writer)
    finally:
        writer.close()


async def is_answered(peer: Http2Peer, stream: int) -> bool:
    """Whether a call on the same connection is."""
    peer.send(frame(HEADERS, END_HEADERS, stream, usual()))
    peer.send(frame(DATA, END_STREAM, stream, message(b"x")))
    return (await peer.status_of(stream)).get("grpc-status") == "0"


async def goodbye(peer: Http2Peer) -> tuple[int, str]:
    """Why the server closes the connection, and its text."""
    said: Frame | None = await peer.until(GOAWAY)
    assert said is not None
    assert await peer.until(GOAWAY) is None
    return int.from_bytes(said.payload[4:8]), said.payload[8:].decode()
