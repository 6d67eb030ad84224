"""What is written to a peer: together what one step of the event loop writes, within its room."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from service.listening.http2.wire import frames
from service.listening.http2.wire.frame_reader import FRAME_BYTES
from service.listening.http2.wire.frames import ConnectionFaultError, Fault

if TYPE_CHECKING:
    import asyncio

    from service.listening.http2.stream import Stream

_MOST_BYTES = 64 * 1024  # that are kept for the end of a step


class Outbox:
    """The frames for one peer, and how much it takes.

    Attributes:
        is_full: whether the operating system takes no more for now.
        window: bytes of data that the peer takes on all streams together.
        frame_bytes: of the longest frame that the peer takes.
        stream_window: bytes that it takes on a new stream.
        waiting: streams that wait for room, the first one first; with what they have to send.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = 0
        self._out: list[bytes] = []
        self._size = 0  # of what is in it
        self._is_closed = False
        self.is_full = False
        self.window = frames.DEFAULT_WINDOW
        self.frame_bytes = frames.DEFAULT_FRAME
        self.stream_window = frames.DEFAULT_WINDOW
        self.waiting: dict[Stream, int] = {}

    def open(self, calls: int, stream_window: int, window: int, header_bytes: int) -> None:
        """Tell the peer what it may do.

        Args:
            calls: in progress.
            stream_window: bytes that it may send on a stream before they are read.
            window: likewise on all streams together.
            header_bytes: of the headers of a call.
        """
        settings = {
            frames.MAX_CONCURRENT_STREAMS: calls,
            frames.INITIAL_WINDOW_SIZE: stream_window,
            frames.MAX_FRAME_SIZE: FRAME_BYTES,
            frames.MAX_HEADER_LIST_SIZE: header_bytes,
        }
        more = window - frames.DEFAULT_WINDOW
        self.write(frames.settings_frame(settings) + frames.window_update(0, more))

    def write(self, octets: bytes) -> None:
        """Write frames, together with others: until `let_go`, or of a round of the event loop."""
        if not self._out and not self._held and not self._is_closed:
            self._loop.call_soon(self.flush)
        self._out.append(octets)
        self._size += len(octets)
        if self._size >= _MOST_BYTES:  # only the transport knows when the peer takes no more
            self.flush()

    def hold(self) -> None:
        """Keep what is written, until `let_go` is called as often as this."""
        self._held += 1

    def let_go(self) -> None:
        """Write what was kept, unless somebody else holds it."""
        self._held -= 1
        if not self._held:
            self.flush()

    def flush(self) -> None:
        """Write now."""
        if self._out:
            out, self._out, self._size = self._out, [], 0
            if not (self._is_closed or self._transport.is_closing()):  # else asyncio warns
                self._transport.write(b"".join(out))

    def close(self) -> None:
        """Write what there is, and nothing later."""
        self.flush()
        self._is_closed = True

    def wake(self) -> None:
        """Tell the streams that wait for room, but no more of them than there is room for."""
        room = 0 if self.is_full else self.window
        shut = []
        for stream, size in self.waiting.items():
            if room <= 0:
                break
            part = min(stream.send_window, size)
            if part > 0:
                stream.on_sendable()
                room -= part
            else:
                shut.append(stream)
        for stream in shut:  # its own room wakes it; else each call here would pass it again
            del self.waiting[stream]

    def widen(self, size: int) -> None:
        """Take notice of more room for all streams. Raises ConnectionFaultError."""
        if not size:
            raise ConnectionFaultError(Fault.PROTOCOL_ERROR, "no more room")
        self.window += size
        if self.window > frames.MAX_ID:
            raise ConnectionFaultError(Fault.FLOW_CONTROL_ERROR, "no such room")
        self.wake()

    def apply(self, settings: bytes) -> int:
        """Take over the peer's settings, and confirm them. Raises ConnectionFaultError.

        Returns:
            By how much the windows of the streams there are grow.
        """
        if len(settings) % 6:
            raise ConnectionFaultError(Fault.FRAME_SIZE_ERROR, "half a setting")
        before = self.stream_window
        for name, value in struct.iter_unpack(">HI", settings):
            if name == frames.INITIAL_WINDOW_SIZE:
                if value > frames.MAX_ID:
                    raise ConnectionFaultError(Fault.FLOW_CONTROL_ERROR, "no such window")
                self.stream_window = value
            elif name == frames.MAX_FRAME_SIZE:
                if not frames.DEFAULT_FRAME <= value < 2**24:
                    raise ConnectionFaultError(Fault.PROTOCOL_ERROR, "no such size of a frame")
                self.frame_bytes = min(value, FRAME_BYTES)
            elif name == frames.ENABLE_PUSH and value > 1:
                raise ConnectionFaultError(Fault.PROTOCOL_ERROR, "neither push nor no push")
        self.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
        return self.stream_window - before
