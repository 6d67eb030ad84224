"""One HTTP/2 connection: when it is read, what its streams ask of it, and how it is closed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from typing_extensions import override

from service.listening.http2.lifetime import Bounds, Lifetime
from service.listening.http2.outbox import Outbox
from service.listening.http2.peer_frames import PeerFrames
from service.listening.http2.stream import STREAM_WINDOW
from service.listening.http2.wire import frames
from service.listening.http2.wire.frame_reader import FrameReader
from service.listening.http2.wire.frames import ConnectionFaultError, Fault
from service.listening.http2.wire.header_blocks import LIST_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.listening.http2.bodies import Requests
    from service.listening.http2.stream import Stream
    from service.listening.http2.turns import Turns

_CONNECTION_WINDOW = 4 * 1024 * 1024  # bytes of all requests of a connection that wait to be read
_OWED = _CONNECTION_WINDOW // 4  # room that is given back in one frame


class Owner(NamedTuple):
    """Who is told of a connection."""

    made: Callable[[Connection], None]
    lost: Callable[[Connection], None]
    closed: Callable[[str], None]
    """Is told why it was closed, if for what its peer did or did not do."""
    turns: Turns
    """Whose connections share the time of the event loop."""


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
        self.bodies = requests.bodies
        self._bounds = bounds
        self._owner = owner
        self.lifetime = Lifetime(self, bounds)
        self.streams: dict[int, Stream] = {}
        self.last_stream = 0
        self.last_answered = frames.MAX_ID
        """Streams with higher numbers are not answered, as the peer was told."""
        self.receive_window = _CONNECTION_WINDOW
        """What the peer may send, as it was told."""
        self._owed = 0  # room that the peer has not been told of
        self._frames = FrameReader(PeerFrames(self, requests, bounds.calls))
        self._is_closing = False
        self.waits_for_turn = False

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
            self.resume()
            self.loop.call_soon(self._owner.turns.ask, self)
        self.outbox.wake()

    @override
    def data_received(self, data: bytes) -> None:
        self._frames.add(data)
        self.lifetime.heard()
        self._owner.turns.ask(self)

    # What streams ask

    def credit(self, size: int) -> None:
        """Let the peer send as much more on any stream, now or together with later room."""
        self._owed += size
        if self._owed >= _OWED:
            self.receive_window += self._owed
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
            self._owner.closed(fault.name.lower())
            self.outbox.write(frames.goaway(self.last_stream, fault, text.encode()))
            self.close()

    def close(self) -> None:
        """Close the connection, after what was written to it."""
        if not self._is_closing:
            self.outbox.close()
            self._is_closing = True
            self.lifetime.close()

    def give_up(self, why: str) -> None:
        """Close the connection at once, as its peer does not answer."""
        self._owner.closed(why)
        self.abort()

    def abort(self) -> None:
        """Close the connection at once."""
        self._is_closing = True
        self.transport.abort()

    # What its turn asks

    def next_cost(self) -> int:
        """Return the cost of the next frame; 0 if there is none that can be read now."""
        return 0 if self.outbox.is_full or self._is_closing else self._frames.next_cost()

    def read(self, most: int) -> int:
        """Read frames of at most this cost, or a single one. Returns what they cost."""
        self.outbox.hold()
        try:
            return self._frames.read(most, lambda: self.outbox.is_full or self._is_closing)
        except ConnectionFaultError as error:
            self.fail(error.fault, str(error))
            return most
        finally:
            self.outbox.let_go()

    def pause(self) -> None:
        """Take no more from the operating system."""
        self.transport.pause_reading()

    def resume(self) -> None:
        """Take more from it, unless something else is against it."""
        if not (self.outbox.is_full or self._is_closing or self.waits_for_turn):
            self.transport.resume_reading()
