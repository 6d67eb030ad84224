"""One HTTP/2 connection: frames in, calls out, within what one peer may take."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from typing_extensions import override

from service.listening.http2 import frames
from service.listening.http2.frame_reader import FrameReader
from service.listening.http2.frames import ConnectionFaultError, Fault
from service.listening.http2.header_blocks import LIST_BYTES, HeaderDecoder, Headers
from service.listening.http2.lifetime import Bounds, Lifetime
from service.listening.http2.outbox import Outbox
from service.listening.http2.stream import STREAM_WINDOW, Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.listening.http2.bodies import Requests

_CONNECTION_WINDOW = 4 * 1024 * 1024  # bytes of all requests of a connection that wait to be read
_FRAMES_A_STEP = 256  # that are read before other work of the event loop goes first
_OWED = _CONNECTION_WINDOW // 4  # room that is given back in one frame


class Owner(NamedTuple):
    """Who is told of a connection."""

    made: Callable[[Connection], None]
    lost: Callable[[Connection], None]


class Connection(asyncio.Protocol):
    """Reads and writes frames. Once it is made it belongs to the event loop.

    Args:
        requests: get the streams that the peer opens.
        bounds: what the peer may do.
        owner: is told of the connection.
    """

    transport: asyncio.Transport
    outbox: Outbox
    peer: object
    """The peer's address, as the operating system gives it."""

    def __init__(self, requests: Requests, bounds: Bounds, owner: Owner) -> None:
        self._requests = requests
        self.bodies = requests.bodies
        self._bounds = bounds
        self._owner = owner
        self.lifetime = Lifetime(self, bounds)
        self.streams: dict[int, Stream] = {}
        self.last_stream = 0
        self.last_answered = frames.MAX_ID
        """Streams with higher numbers are not answered, as the peer was told."""
        self._receive_window = _CONNECTION_WINDOW
        self._owed = 0  # room that the peer has not been told of
        self._decoder = HeaderDecoder()
        self._frames = FrameReader(self)
        self._is_closing = False

    # asyncio's protocol

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self.outbox = Outbox(transport, self.loop)
        self.peer = transport.get_extra_info("peername")
        self.outbox.open(self._bounds.calls, STREAM_WINDOW, _CONNECTION_WINDOW, LIST_BYTES)
        self.lifetime.begin()
        self._owner.made(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closing = True
        self.lifetime.end()
        streams, self.streams = list(self.streams.values()), {}
        for stream in streams:
            stream.on_reset()
        self._owner.lost(self)

    @override
    def pause_writing(self) -> None:
        self.outbox.is_full = True
        self.transport.pause_reading()  # what it says would have to be answered

    @override
    def resume_writing(self) -> None:
        self.outbox.is_full = False
        self.lifetime.heard()
        if not self._is_closing:
            self.transport.resume_reading()
            self.loop.call_soon(self._read_on)
        self.outbox.wake()

    @override
    def data_received(self, data: bytes) -> None:
        self._frames.add(data)
        self.lifetime.heard()
        self._read()

    # What streams ask

    def credit(self, size: int) -> None:
        """Let the peer send as much more on any stream, now or together with later room."""
        self._owed += size
        if self._owed >= _OWED:
            self._receive_window += self._owed
            self.outbox.write(frames.window_update(0, self._owed))
            self._owed = 0

    def remove(self, stream: Stream) -> None:
        """Forget a stream that has ended."""
        if self.streams.pop(stream.number, None) is not None:
            self.credit(stream.unread)
            self.lifetime.stream_ended()

    def fail(self, fault: Fault, text: str) -> None:
        """Close the connection, and say why."""
        if not self._is_closing:
            self.outbox.write(frames.goaway(self.last_stream, fault, text.encode()))
            self.close()

    def close(self) -> None:
        """Close the connection, after what was written to it."""
        if not self._is_closing:
            self.outbox.close()
            self._is_closing = True
            self.lifetime.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self._is_closing = True
        self.transport.abort()

    # Frames

    def _read(self) -> None:
        self.outbox.hold()
        try:
            if self._frames.read(_FRAMES_A_STEP, lambda: self.outbox.is_full or self._is_closing):
                self._read_on_later()
        except ConnectionFaultError as error:
            self.fail(error.fault, str(error))
        finally:
            self.outbox.let_go()

    def _read_on_later(self) -> None:
        if not self.outbox.is_full and not self._is_closing:
            self.transport.pause_reading()
            self.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self._is_closing and not self.outbox.is_full:
            self.transport.resume_reading()
            self._read()

    # What the peer says

    def on_preface(self) -> None:
        """The peer speaks HTTP/2."""
        self.lifetime.shook_hands()

    def on_fragment(self) -> None:
        """A header block goes on."""
        self.lifetime.spend()

    def on_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """A frame that begins no request."""
        match kind:
            case frames.DATA:
                self._data(flags, number, payload)
            case frames.WINDOW_UPDATE:
                self._window_update(number, payload)
            case frames.RST_STREAM:
                self._reset(number, payload)
            case frames.SETTINGS:
                self._settings(flags, number, payload)
            case frames.PING:
                self._ping(flags, number, payload)
            case frames.PUSH_PROMISE:
                raise ConnectionFaultError(Fault.PROTOCOL_ERROR, "clients push nothing")
            case _:  # PRIORITY and GOAWAY ask for nothing; what is unknown is ignored
                self.lifetime.spend()

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._receive_window -= size
        if self._receive_window < 0:
            raise ConnectionFaultError(Fault.FLOW_CONTROL_ERROR, "more data than allowed")
        if flags & frames.PADDED:
            payload = frames.without_padding(payload, flags)
        ends = flags & frames.END_STREAM
        if not payload and not ends:
            self.lifetime.spend()
        stream = self.streams.get(number)
        if stream is None or stream.is_whole:
            if not 0 < number <= self.last_stream:
                raise ConnectionFaultError(Fault.PROTOCOL_ERROR, "data of no stream")
            self.credit(size)  # the stream has ended meanwhile
            return
        stream.on_data(payload, size)
        if ends:
            stream.on_end()
        self._requests.progress(stream)

    def on_header_block(self, number: int, block: bytes, *, ends: bool) -> None:
        """A request begins, or trailers end it."""
        headers = self._decoder.decode(block)  # whatever becomes of it, as it changes the table
        stream = self.streams.get(number)
        if stream is not None:  # trailers
            if not ends or stream.is_whole:
                raise ConnectionFaultError(Fault.PROTOCOL_ERROR, "headers within a stream")
            stream.on_end()
            self._requests.progress(stream)
            return
        if number % 2 == 0:
            raise ConnectionFaultError(Fault.PROTOCOL_ERROR, "not the number of a stream")
        if number <= self.last_stream:  # reset by us, before the peer knew
            self.lifetime.spend()
            return
        self.last_stream = number
        self._begin(number, headers, ends=ends)

    def _begin(self, number: int, headers: Headers, *, ends: bool) -> None:
        if number > self.last_answered:  # the peer tries again on another connection
            return
        if len(self.streams) >= self._bounds.calls:
            self.lifetime.spend()
            self.outbox.write(frames.reset(number, Fault.REFUSED_STREAM))
            return
        stream = self.streams[number] = Stream(self, number, headers, self.outbox.stream_window)
        self.lifetime.stream_began()
        if ends:
            stream.on_end()
        self._requests.begin(stream)

    def _window_update(self, number: int, payload: bytes) -> None:
        size = int.from_bytes(_exactly(4, payload)) & 0x7FFFFFFF
        stream = self.streams.get(number)
        if number and stream is None:
            if number > self.last_stream:
                raise ConnectionFaultError(Fault.PROTOCOL_ERROR, "room for no stream")
            return
        if stream is None:
            self.outbox.widen(size)
            return
        stream.send_window += size
        if not size or stream.send_window > frames.MAX_ID:
            self.lifetime.spend()  # it costs what a reset by the peer does
            fault = Fault.FLOW_CONTROL_ERROR if size else Fault.PROTOCOL_ERROR
            self.outbox.write(frames.reset(number, fault))
            stream.on_reset()
            self.remove(stream)
            return
        stream.on_sendable()

    def _reset(self, number: int, payload: bytes) -> None:
        _exactly(4, payload)
        if not 0 < number <= self.last_stream:
            raise ConnectionFaultError(Fault.PROTOCOL_ERROR, "no stream is reset")
        stream = self.streams.get(number)
        self.lifetime.spend()
        if stream is not None:
            stream.on_reset()
            self.remove(stream)

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFaultError(Fault.PROTOCOL_ERROR, "settings of a stream")
        self.lifetime.spend()
        if flags & frames.ACK:
            return
        change = self.outbox.apply(payload)
        for stream in self.streams.values():
            stream.send_window += change
        self.outbox.wake()

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        _exactly(8, payload)
        if number:
            raise ConnectionFaultError(Fault.PROTOCOL_ERROR, "a ping of a stream")
        if flags & frames.ACK:
            self.lifetime.ping_answered(payload)
        else:
            self.lifetime.pinged()
            self.outbox.write(frames.frame(frames.PING, frames.ACK, 0, payload))


def _exactly(size: int, payload: bytes) -> bytes:
    if len(payload) != size:
        raise ConnectionFaultError(Fault.FRAME_SIZE_ERROR, "the length of a frame is wrong")
    return payload
