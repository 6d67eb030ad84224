"""gRPC's framing: the messages of a call, read from the chunks of a body as these arrive.

Each message has a prefix of five bytes: whether it is compressed, and its length.
"""

from __future__ import annotations

import asyncio
import io
import zlib
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    NextChunk = Callable[[], Awaitable[bytes | None]]

ENCODINGS = b"identity, deflate, gzip"
"""What `grpc-accept-encoding` says: how requests may be compressed. Answers are not."""

PREFIX_BYTES = 5
_WINDOW_BITS = {b"gzip": 31, b"deflate": 15}
_STEP_BYTES = 256 * 1024  # copied or decompressed in one step of the event loop
_STEP_COST = 4096  # of reading any message, in bytes


class MessageError(Exception):
    """The body is not a sequence of messages, or one of them is too large.

    Attributes:
        status: what the call ends with.
        reason: in one word, for metrics.
    """

    def __init__(self, status: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.status = status
        is_large = status is grpc.StatusCode.RESOURCE_EXHAUSTED
        self.reason = "message_too_large" if is_large else "malformed"


def _ignore(_size: int) -> None:
    pass


class MessageReader:
    """Reads the messages of one call.

    Args:
        next_chunk: returns the next part of the body; None at its end.
        limit: bytes of the largest message, also after decompression.
        encoding: what `grpc-encoding` says.
        start: what was read of the body before.
        keep: is told how many bytes more are kept than have come, by decompression.
        release: is told how many bytes of those which have come are read, or kept no more.
    """

    def __init__(
        self,
        next_chunk: NextChunk,
        limit: int,
        encoding: bytes = b"identity",
        start: bytes = b"",
        keep: Callable[[int], None] = _ignore,
        release: Callable[[int], None] = _ignore,
    ) -> None:
        self._next_chunk = next_chunk
        self._limit = limit
        self._encoding = encoding
        self._keep = keep
        self._release = release
        self._rest = start  # received, not read yet
        self._ended = False
        self._step = 0  # bytes handled since others could run

    async def next(self) -> bytes | None:
        """Return the next message; None after the last one.

        Large messages are copied chunk by chunk, with other work in between.

        Raises:
            MessageError: the body is malformed, or the message is too large.
            PeerLeftError: nobody waits for an answer.
        """
        await self._let_others_run(_STEP_COST)
        rest = self._rest
        while len(rest) < PREFIX_BYTES:
            if self._ended:
                if rest:
                    raise _incomplete()
                return None
            rest += await self._chunk()
        is_compressed, length = rest[0], int.from_bytes(rest[1:PREFIX_BYTES])
        self._check(length)
        end = PREFIX_BYTES + length
        if len(rest) >= end:
            message, self._rest = rest[PREFIX_BYTES:end], rest[end:]
        else:
            message = await self._joined(rest[PREFIX_BYTES:], length)
        if is_compressed:
            message = await self._decompressed(message)
        self._release(end)
        return message

    async def only(self) -> bytes:
        """Return the message of a call that has one. Raises as `next`."""
        message = await self.next()
        if message is None or await self.next() is not None:
            raise MessageError(grpc.StatusCode.UNIMPLEMENTED, "the method takes one message")
        return message

    async def _joined(self, start: bytes, length: int) -> bytes:
        """Return a message of which more is to come. Its memory grows as it arrives."""
        whole = io.BytesIO()  # gives its bytes away without another copy
        missing = length - whole.write(start)
        while missing > 0:
            if self._ended:
                raise _incomplete()
            chunk = await self._chunk()
            if len(chunk) > missing:
                chunk, self._rest = chunk[:missing], chunk[missing:]
            else:
                self._rest = b""
            missing -= whole.write(chunk)
            await self._let_others_run(len(chunk))
        return whole.getvalue()

    async def _chunk(self) -> bytes:
        chunk = await self._next_chunk()
        if chunk is None:
            self._ended = True
            return b""
        return chunk

    async def _decompressed(self, message: bytes) -> bytes:
        bits = _WINDOW_BITS.get(self._encoding)
        if bits is None:
            raise MessageError(
                grpc.StatusCode.INTERNAL, "a message is compressed, but grpc-encoding does not say"
            )
        whole, decompressor = io.BytesIO(), zlib.decompressobj(bits)
        pending = message
        try:
            while not decompressor.eof:
                piece = decompressor.decompress(pending, _STEP_BYTES)
                pending = decompressor.unconsumed_tail
                if not piece and not pending and not decompressor.eof:
                    raise _undecodable()
                self._check(whole.tell() + len(piece))
                whole.write(piece)
                self._keep(len(piece))
                await self._let_others_run(len(piece))
        except zlib.error:
            raise _undecodable() from None
        self._release(whole.tell())
        return whole.getvalue()

    def _check(self, length: int) -> None:
        if length > self._limit:
            raise MessageError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the message is larger than the limit ({length} vs. {self._limit} bytes)",
            )

    async def _let_others_run(self, size: int) -> None:
        self._step += size
        if self._step >= _STEP_BYTES:
            self._step = 0
            await asyncio.sleep(0)


def prefix_of(length: int) -> bytes:
    """Return the prefix of a message of so many bytes that is not compressed."""
    return length.to_bytes(PREFIX_BYTES)


def _incomplete() -> MessageError:
    return MessageError(grpc.StatusCode.INTERNAL, "the body ends within a message")


def _undecodable() -> MessageError:
    return MessageError(grpc.StatusCode.INTERNAL, "the message cannot be decompressed")
