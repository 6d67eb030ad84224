"""One stream of a connection: a request as it arrives, and its response as the peer takes it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from service.listening.http2.wire.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    ConnectionFaultError,
    Fault,
    frame,
    reset,
    window_update,
)

if TYPE_CHECKING:
    from service.listening.http2.connection import Connection
    from service.listening.http2.wire.header_blocks import Headers

STREAM_WINDOW = 1024 * 1024
"""Bytes of a request that may wait to be read."""
_SMALL = 4096  # bytes of a part to which the next one is added
_OWED = STREAM_WINDOW // 2  # room that is given back in one frame
_STEP_BYTES = 256 * 1024  # sent before other work of the event loop goes first
_STEP_COST = 4096  # of sending anything, in bytes


class PeerLeftError(Exception):
    """The peer has reset the stream, or the connection is lost."""


class Stream:
    """A request and its response.

    Attributes:
        headers: of the request.
        is_whole: whether all of the request has arrived.
        is_reset: whether nobody waits for the response.
        is_closed: whether the response is sent.
        task: what answers, once it does.
        timer: ends the stream at its peer's deadline, once that is known.
        credits_at_once: whether the peer may send on although what it sent is not read yet.
        received: bytes of the body so far.
        unread: bytes of the connection's room that this stream takes.
        call: what its listener keeps about it.
    """

    def __init__(self, connection: Connection, number: int, headers: Headers, window: int) -> None:
        self.connection = connection
        self._outbox = connection.outbox
        self._bodies = connection.bodies
        self.number = number
        self.headers = headers
        self.send_window = window
        self.received = 0
        self.unread = 0
        self._window = STREAM_WINDOW  # what the peer may send, as it was told
        self._owed = 0
        self._step = 0  # sent since others could run
        self.is_whole = False
        self.is_reset = False
        self.is_closed = False
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.credits_at_once = False
        self.call: Any = None
        self._chunks: deque[bytes] = deque()
        self._changed: asyncio.Future[None] | None = None
        self._sendable: asyncio.Future[None] | None = None

    # What the connection tells

    def on_data(self, chunk: bytes, size: int) -> None:
        """Keep a part of the body. Raises ConnectionFaultError.

        Args:
            chunk: the part.
            size: of its frame, with padding.
        """
        self._window -= size
        if self._window < 0:
            raise ConnectionFaultError(Fault.FLOW_CONTROL_ERROR, "more data than allowed")
        self.unread += size
        self.received += len(chunk)
        self._credit(size if self.credits_at_once else size - len(chunk))
        if (
            self._chunks and len(self._chunks[-1]) < _SMALL
        ):  # else tiny frames would take much memory
            self._chunks[-1] += chunk
        elif chunk:
            self._chunks.append(chunk)
        self._wake()
        if chunk:
            self._bodies.keep(self, len(chunk))

    def on_end(self) -> None:
        """The request is whole."""
        self.is_whole = True
        self._wake()

    def on_reset(self) -> None:
        """Nobody waits for the response: what answers is cancelled."""
        self.is_reset = True
        self.stop_clock()
        self._bodies.forget(self)
        self._wake()
        if self.task is not None:
            self.task.cancel()
        self.on_sendable()

    def on_sendable(self) -> None:
        """There may be room to send."""
        if self._sendable is not None and not self._sendable.done():
            self._sendable.set_result(None)

    # What the call asks

    def first(self, size: int) -> bytes:
        """Return the first bytes of the body that have arrived, but do not take them."""
        return self._chunks[0][:size] if self._chunks else b""

    def all_at_once(self) -> bytes | None:
        """Return the whole body if it came in one frame and is whole, else None."""
        if self.is_whole and len(self._chunks) == 1:
            return self._chunks.popleft()
        return None

    def keep(self, size: int) -> None:
        """The request takes more memory than has arrived."""
        self._bodies.keep(self, size)

    def release(self, size: int) -> None:
        """The request takes less memory than has arrived, as a part of it is read."""
        self._bodies.release(self, size)

    def release_all(self) -> None:
        """The request is read."""
        self._bodies.forget(self)

    def stop_clock(self) -> None:
        """The deadline does not matter any more."""
        if self.timer is not None:
            self.timer.cancel()

    async def chunk(self) -> bytes | None:
        """Return the next part of the body; None at its end. Raises PeerLeftError."""
        while not self._chunks:
            if self.is_reset:
                raise PeerLeftError
            if self.is_whole:
                return None
            self._changed = self.connection.loop.create_future()
            await self._changed
        chunk = self._chunks.popleft()
        if not self.credits_at_once:
            self._credit(len(chunk))
        return chunk

    def send_headers(self, block: bytes, *, ends: bool) -> None:
        """Send a header block, which may be the last of the response. Raises PeerLeftError."""
        if self.is_reset:
            raise PeerLeftError
        flags = END_HEADERS | (END_STREAM if ends else 0)
        self._outbox.write(frame(HEADERS, flags, self.number, block))
        if ends:
            self._close()

    def send_at_once(self, before: bytes, data: bytes, after: bytes) -> bool:
        """Send header blocks with data in between, the whole response, if the peer has room.

        Returns:
            Whether it is sent. Raises PeerLeftError.
        """
        if self.is_reset:
            raise PeerLeftError
        size = len(data)
        if size > self._room() or self._outbox.is_full:
            return False
        self._outbox.window -= size
        number = self.number
        self._outbox.write(
            frame(HEADERS, END_HEADERS, number, before)
            + frame(DATA, 0, number, data)
            + frame(HEADERS, END_HEADERS | END_STREAM, number, after)
        )
        self._close()
        return True

    async def send_data(self, data: bytes) -> None:
        """Send a part of the body. Waits while the peer has no room. Raises PeerLeftError."""
        at, size = 0, len(data)
        while at < size:
            if self.is_reset:
                self._outbox.wake()  # others, as it was perhaps told of room
                raise PeerLeftError
            part = min(self._room(), size - at)
            if part <= 0 or self._outbox.is_full:
                await self._until_sendable(size - at)
                continue
            self.send_window -= part
            self._outbox.window -= part
            self._outbox.write(frame(DATA, 0, self.number, data[at : at + part]))
            at += part
            await self._let_others_run(part)

    async def _let_others_run(self, sent: int) -> None:
        self._step += sent + _STEP_COST
        if self._step >= _STEP_BYTES:
            self._step = 0
            await asyncio.sleep(0)

    def _credit(self, size: int) -> None:
        self.unread -= size
        self._owed += size
        if self._owed >= _OWED and not self.is_whole:
            self._outbox.write(window_update(self.number, self._owed))
            self._window += self._owed
            self._owed = 0
        self.connection.credit(size)

    def _room(self) -> int:
        return min(self.send_window, self._outbox.window, self._outbox.frame_bytes)

    async def _until_sendable(self, size: int) -> None:
        self._outbox.waiting[self] = size
        self._sendable = self.connection.loop.create_future()
        try:
            await self._sendable
        except asyncio.CancelledError:
            self._outbox.waiting.pop(self, None)
            if not self._sendable.cancelled():  # others get the room that it was told of
                self._outbox.wake()
            raise
        finally:
            self._outbox.waiting.pop(self, None)

    def _close(self) -> None:
        self.is_closed = True
        self.stop_clock()
        self._bodies.forget(self)
        if self.task is not None:  # else it is refused, which costs next to nothing
            self.connection.lifetime.answered()
        if not self.is_whole:  # the peer need not send the rest
            self._outbox.write(reset(self.number, Fault.NO_ERROR))
        self.connection.remove(self)

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
