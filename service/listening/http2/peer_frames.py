"""What the frames of a connection's peer mean, as RFC 9113 says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.listening.http2.stream import Stream
from service.listening.http2.wire import frames
from service.listening.http2.wire.frames import ConnectionFaultError, Fault
from service.listening.http2.wire.header_blocks import HeaderDecoder
from service.listening.http2.wire.malformed import fault_of_trailers

if TYPE_CHECKING:
    from service.listening.http2.bodies import Requests
    from service.listening.http2.connection import Connection
    from service.listening.http2.wire.header_blocks import Headers

_GOAWAY_BYTES = 8  # at least
# What takes as long as another frame that asks for nothing:
_SETTINGS_BYTES = 96
_STREAMS_A_TALK = 8  # whose windows change


class PeerFrames:
    """Does what the frames of a connection say, within what one peer may take.

    Args:
        connection: whose frames they are.
        requests: get the streams that the peer opens.
        calls: that may be in progress.
    """

    def __init__(self, connection: Connection, requests: Requests, calls: int) -> None:
        self._connection = connection
        self._requests = requests
        self._calls = calls
        self._decoder = HeaderDecoder()

    def on_preface(self) -> None:
        """The peer speaks HTTP/2."""
        self._connection.lifetime.shook_hands()

    def on_fragment(self) -> None:
        """A header block goes on."""
        self._connection.lifetime.spend()

    def on_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """A frame that begins no request."""
        match kind:
            case frames.DATA:
                self._data(flags, number, payload)
            case frames.WINDOW_UPDATE:
                self._window_update(number, payload)
            case frames.RST_STREAM:
                self._reset(number)
            case frames.SETTINGS:
                self._settings(flags, payload)
            case frames.PING:
                self._ping(flags, payload)
            case frames.PUSH_PROMISE:
                raise ConnectionFaultError(Fault.PROTOCOL_ERROR, "clients push nothing")
            case frames.GOAWAY if len(payload) < _GOAWAY_BYTES:
                raise ConnectionFaultError(Fault.FRAME_SIZE_ERROR, "half a farewell")
            case _:  # PRIORITY and GOAWAY ask for nothing; what is unknown is ignored
                self._connection.lifetime.spend()

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._connection.receive_window -= size
        if self._connection.receive_window < 0:
            raise ConnectionFaultError(Fault.FLOW_CONTROL_ERROR, "more data than allowed")
        if flags & frames.PADDED:
            payload = frames.without_padding(payload, flags)
        ends = flags & frames.END_STREAM
        if not payload and not ends:
            self._connection.lifetime.spend()
        stream = self._connection.streams.get(number)
        if stream is None or stream.is_whole:
            self._check_not_idle(number)
            self._connection.credit(size)
            if stream is not None:  # else it has ended meanwhile
                self._end_by_fault(stream, Fault.STREAM_CLOSED)
            return
        stream.on_data(payload, size)
        if ends:
            self._end(stream)
        else:
            self._requests.progress(stream)

    def on_header_block(self, number: int, block: bytes, *, ends: bool) -> None:
        """A request begins, or trailers end it."""
        headers = self._decoder.decode(block)  # whatever becomes of it, as it changes the table
        stream = self._connection.streams.get(number)
        if stream is not None:  # trailers
            if not ends or stream.is_whole:
                fault = Fault.STREAM_CLOSED if stream.is_whole else Fault.PROTOCOL_ERROR
                raise ConnectionFaultError(fault, "headers within a stream")
            if fault_of_trailers(headers):
                self._end_by_fault(stream, Fault.PROTOCOL_ERROR)
            else:
                self._end(stream)
            return
        if number % 2 == 0:
            raise ConnectionFaultError(Fault.PROTOCOL_ERROR, "not the number of a stream")
        if number <= self._connection.last_stream:  # reset by us, before the peer knew
            self._connection.lifetime.spend()
            return
        self._connection.last_stream = number
        self._begin(number, headers, ends=ends)

    def _begin(self, number: int, headers: Headers, *, ends: bool) -> None:
        if number > self._connection.last_answered:  # the peer tries again on another connection
            self._connection.lifetime.spend()
            return
        if headers.fault or (ends and headers.body_bytes):
            self._refuse(number, Fault.PROTOCOL_ERROR)
            return
        if len(self._connection.streams) >= self._calls:
            self._refuse(number, Fault.REFUSED_STREAM)
            return
        stream = self._connection.streams[number] = Stream(
            self._connection, number, headers, self._connection.outbox.stream_window
        )
        self._connection.lifetime.stream_began()
        if ends:
            stream.on_end()
        self._requests.begin(stream)

    def _end(self, stream: Stream) -> None:
        promised = stream.headers.body_bytes
        if promised is not None and promised != stream.received:
            self._end_by_fault(stream, Fault.PROTOCOL_ERROR)
            return
        stream.on_end()
        self._requests.progress(stream)

    def _end_by_fault(self, stream: Stream, fault: Fault) -> None:
        self._refuse(stream.number, fault)
        stream.on_reset()
        self._connection.remove(stream)

    def _refuse(self, number: int, fault: Fault) -> None:
        is_beyond = fault is Fault.REFUSED_STREAM
        self._requests.refused("calls_per_connection" if is_beyond else "malformed")
        self._connection.lifetime.spend()  # it costs what a reset by the peer does
        self._connection.outbox.write(frames.reset(number, fault))

    def _window_update(self, number: int, payload: bytes) -> None:
        size = int.from_bytes(payload) & frames.MAX_ID
        if not number:
            self._connection.outbox.widen(size)
            return
        stream = self._connection.streams.get(number)
        if stream is None:
            self._check_not_idle(number)
            return
        stream.send_window += size
        if not size or stream.send_window > frames.MAX_ID:
            fault = Fault.FLOW_CONTROL_ERROR if size else Fault.PROTOCOL_ERROR
            self._end_by_fault(stream, fault)
            return
        stream.on_sendable()

    def _reset(self, number: int) -> None:
        self._check_not_idle(number)
        stream = self._connection.streams.get(number)
        self._connection.lifetime.spend()
        if stream is not None:
            stream.on_reset()
            self._connection.remove(stream)

    def _settings(self, flags: int, payload: bytes) -> None:
        self._connection.lifetime.spend(1 + len(payload) / _SETTINGS_BYTES)
        if flags & frames.ACK:
            if payload:
                raise ConnectionFaultError(Fault.FRAME_SIZE_ERROR, "a confirmation with settings")
            return
        change = self._connection.outbox.apply(payload)
        if change:
            self._connection.lifetime.spend(len(self._connection.streams) / _STREAMS_A_TALK)
        for stream in self._connection.streams.values() if change else ():
            stream.send_window += change
            if stream.send_window > frames.MAX_ID:
                raise ConnectionFaultError(Fault.FLOW_CONTROL_ERROR, "no such window")
            if stream.send_window - change <= 0 < stream.send_window:
                stream.on_sendable()

    def _check_not_idle(self, number: int) -> None:
        if number > self._connection.last_stream or number % 2 == 0:
            raise ConnectionFaultError(Fault.PROTOCOL_ERROR, "a frame of no stream")

    def _ping(self, flags: int, payload: bytes) -> None:
        if flags & frames.ACK:
            self._connection.lifetime.ping_answered(payload)
        else:
            self._connection.lifetime.pinged()
            self._connection.outbox.write(frames.frame(frames.PING, frames.ACK, 0, payload))
