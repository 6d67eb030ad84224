"""Octets -> frames, with header blocks put together; within the bounds of their sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from service.listening.http2 import frames
from service.listening.http2.frames import ConnectionFaultError, Fault

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
_HPACK_BYTES = 16  # that take as long as a frame


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
        self._has_preface = False
        self._has_settings = False
        self._block: tuple[int, int, bytes] | None = None  # stream, flags, header block so far

    def add(self, data: bytes) -> None:
        """Keep what has come until it is read."""
        self._buffer = self._buffer + data if self._buffer else data

    def read(self, most: int, is_over: Callable[[], bool]) -> bool:
        """Read whole frames.

        Args:
            most: how many; headers count for more.
            is_over: whether no further one is to be read.

        Returns:
            Whether there are more of them.

        Raises:
            ConnectionFaultError: what came is not HTTP/2, or not allowed.
        """
        buffer, at, more = self._buffer, 0, False
        if not self._has_preface:
            at = self._preface(buffer)
        while self._has_preface and len(buffer) - at >= frames.HEAD_BYTES:
            high, low, kind, flags, number = frames.head.unpack_from(buffer, at)
            length = high << 8 | low
            if length > FRAME_BYTES:
                raise ConnectionFaultError(Fault.FRAME_SIZE_ERROR, "a frame is too long")
            end = at + frames.HEAD_BYTES + length
            if end > len(buffer):
                break
            if most <= 0 or is_over():
                more = True
                break
            most -= 1
            if kind in _OF_BLOCKS:
                most -= length // _HPACK_BYTES
            at = end
            self._frame(kind, flags, number & frames.MAX_ID, buffer[end - length : end])
        self._buffer = buffer[at:]
        return more

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
