"""Octets -> frames, with header blocks put together; within the bounds of their sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from service.listening.http2.wire import frames
from service.listening.http2.wire.frames import ConnectionFaultError, Fault

if TYPE_CHECKING:
    from collections.abc import Callable

FRAME_BYTES = 64 * 1024
"""Of the longest frame that is read."""
_OF_BLOCKS = (frames.HEADERS, frames.CONTINUATION)
_BLOCK_BYTES = 64 * 1024  # of a header block, compressed
_PRIORITY_BYTES = 5
_LENGTHS = {
    frames.PRIORITY: _PRIORITY_BYTES,
    frames.RST_STREAM: 4,
    frames.PING: 8,
    frames.WINDOW_UPDATE: 4,
}
_OF_STREAMS = {frames.DATA, frames.PRIORITY, frames.RST_STREAM, *_OF_BLOCKS}
_OF_CONNECTIONS = {frames.SETTINGS, frames.PING, frames.GOAWAY}
_HPACK_BYTES = 16  # that take as long as a frame, or up to 20 microseconds if the peer wants that


class FrameHandler(Protocol):
    """What is done with frames. Every method may raise ConnectionFaultError."""

    def on_preface(self) -> None:
        """The peer speaks HTTP/2."""

    def on_header_block(self, number: int, block: bytes, *, ends: bool) -> None:
        """A whole header block of a stream; `ends`: nothing follows in the stream."""

    def on_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """A frame of another kind."""

    def on_fragment(self) -> None:
        """A header block goes on in a further frame."""


class FrameReader:
    """Reads what one peer sends.

    Args:
        handler: gets the frames.
    """

    def __init__(self, handler: FrameHandler) -> None:
        self._handler = handler
        self._buffer = b""
        self._at = 0  # what is before is read
        self._has_preface = False
        self._has_settings = False
        self._block: tuple[int, int, bytes] | None = None  # stream, flags, header block so far

    def add(self, data: bytes) -> None:
        """Keep what has come until it is read."""
        self._buffer = self._buffer[self._at :] + data if self._buffer else data
        self._at = 0

    def next_cost(self) -> int:
        """Return the cost of the next frame, 1 and more for long headers; 0 if it is not whole."""
        size = len(self._buffer) - self._at
        if not self._has_preface:
            is_wrong = not frames.PREFACE.startswith(self._buffer[: len(frames.PREFACE)])
            return int(is_wrong or size >= len(frames.PREFACE))
        if size < frames.HEAD_BYTES:
            return 0
        high, low, kind, flags, _ = frames.head.unpack_from(self._buffer, self._at)
        length = high << 8 | low
        if size < frames.HEAD_BYTES + length <= frames.HEAD_BYTES + FRAME_BYTES:
            return 0
        return self._cost(kind, flags, length)

    def read(self, most: int, is_over: Callable[[], bool]) -> int:
        """Read whole frames.

        Args:
            most: what they may cost, unless it is only one.
            is_over: whether no further one is to be read.

        Returns:
            What they have cost.

        Raises:
            ConnectionFaultError: what came is not HTTP/2, or not allowed.
        """
        buffer, at, cost = self._buffer, self._at, 0
        if not self._has_preface:
            at = self._preface(buffer)
            cost += self._has_preface
        while self._has_preface and len(buffer) - at >= frames.HEAD_BYTES:
            high, low, kind, flags, number = frames.head.unpack_from(buffer, at)
            length = high << 8 | low
            if length > FRAME_BYTES:
                raise ConnectionFaultError(Fault.FRAME_SIZE_ERROR, "a frame is too long")
            end = at + frames.HEAD_BYTES + length
            if end > len(buffer):
                break
            added = self._cost(kind, flags, length)
            if (cost and cost + added > most) or is_over():
                break
            cost += added
            at = end
            self._frame(kind, flags, number & frames.MAX_ID, buffer[end - length : end])
        if at == len(buffer):
            self._buffer, self._at = b"", 0
        else:
            self._at = at
        return cost

    def _cost(self, kind: int, flags: int, length: int) -> int:
        if kind not in _OF_BLOCKS or not flags & frames.END_HEADERS:
            return 1
        before = 0 if self._block is None else len(self._block[2])
        return 1 + (before + length) // _HPACK_BYTES

    def _preface(self, buffer: bytes) -> int:
        start = buffer[: len(frames.PREFACE)]
        if start != frames.PREFACE[: len(start)]:
            raise ConnectionFaultError(Fault.PROTOCOL_ERROR, "not HTTP/2")
        if len(start) < len(frames.PREFACE):
            return 0
        self._has_preface = True
        self._handler.on_preface()
        return len(frames.PREFACE)

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        self._check(kind, flags, number, len(payload))
        if kind == frames.HEADERS:
            payload = frames.without_padding(payload, flags)
            if flags & frames.WITH_PRIORITY:
                _check_priority(number, payload)
                payload = payload[_PRIORITY_BYTES:]
            self._fragment(number, flags, payload, flags & frames.END_HEADERS)
        elif kind == frames.CONTINUATION:
            if self._block is None:
                raise ConnectionFaultError(Fault.PROTOCOL_ERROR, "no header block is continued")
            self._handler.on_fragment()
            _, first_flags, block = self._block
            self._fragment(number, first_flags, block + payload, flags & frames.END_HEADERS)
        else:
            if kind == frames.PRIORITY:
                _check_priority(number, payload)
            self._handler.on_frame(kind, flags, number, payload)

    def _check(self, kind: int, flags: int, number: int, length: int) -> None:
        if not self._has_settings:
            if kind != frames.SETTINGS or flags & frames.ACK:
                raise ConnectionFaultError(Fault.PROTOCOL_ERROR, "the settings come first")
            self._has_settings = True
        if kind in (_OF_CONNECTIONS if number else _OF_STREAMS):
            raise ConnectionFaultError(Fault.PROTOCOL_ERROR, "a frame of a wrong stream")
        if length != _LENGTHS.get(kind, length):
            raise ConnectionFaultError(Fault.FRAME_SIZE_ERROR, "the length of a frame is wrong")
        if self._block is not None and (kind != frames.CONTINUATION or number != self._block[0]):
            raise ConnectionFaultError(Fault.PROTOCOL_ERROR, "a header block does not end")

    def _fragment(self, number: int, flags: int, block: bytes, is_whole: int) -> None:
        if len(block) > _BLOCK_BYTES:
            raise ConnectionFaultError(Fault.ENHANCE_YOUR_CALM, "a header block is too long")
        self._block = None if is_whole else (number, flags, block)
        if is_whole:
            self._handler.on_header_block(number, block, ends=bool(flags & frames.END_STREAM))


def _check_priority(number: int, payload: bytes) -> None:
    if len(payload) < _PRIORITY_BYTES:
        raise ConnectionFaultError(Fault.FRAME_SIZE_ERROR, "half a priority")
    if int.from_bytes(payload[:4]) & frames.MAX_ID == number:
        raise ConnectionFaultError(Fault.PROTOCOL_ERROR, "a stream depends on itself")
