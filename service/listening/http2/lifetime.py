"""How long a connection lasts, and how much of its peer's idle talk is listened to."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, NamedTuple

from service.listening.http2.wire import frames
from service.listening.http2.wire.frames import Fault

if TYPE_CHECKING:
    from service.listening.http2.connection import Connection

_DEAD_AFTER_SECONDS = (60.0, 20.0)  # of silence; then without an answer to a ping
_CLOSE_SECONDS = 5.0  # for the peer to take what was written to it
_SPREAD = 0.1  # of the age, so that connections made together are not renewed together
_ALIVE, _DRAINING = b"kvalive?", b"kvdrain?"
_STRIKES = 2  # pings that may come too soon
_TALK_PER_SECOND = 2000.0  # frames that do nothing, and calls that are cancelled
_TALK_AT_ONCE = 10_000.0


class Bounds(NamedTuple):
    """What the peer of a connection may do."""

    calls: int
    """In progress at the same time."""
    handshake_seconds: float
    """Until it speaks HTTP/2."""
    idle_seconds: float
    """Without calls; 0: for ever."""
    ping_seconds: float
    """Between two pings."""
    age_seconds: float
    """Then it is told to reconnect; 0: never."""
    grace_seconds: float
    """What its calls may take then."""


class Lifetime:
    """The clock of one connection, and the patience with its peer.

    A connection ends when its peer does not speak HTTP/2 in time, has no calls for long, does not
    answer a ping, talks too much, or when it is old: then it is drained, which loses no call.
    """

    def __init__(self, connection: Connection, bounds: Bounds) -> None:
        self._connection = connection
        self._bounds = bounds
        self._loop = asyncio.get_running_loop()
        self._began = self._heard = self._idle_since = self._loop.time()
        spread = random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311 - no secret
        self._old_at = self._began + bounds.age_seconds * spread if bounds.age_seconds else None
        self._timer: asyncio.TimerHandle | None = None
        self._has_preface = False
        self._pinged: float | None = None
        self._is_draining = False
        self._drained_at: float | None = None
        self._last_ping = 0.0
        self._strikes = 0
        self._talk = _TALK_AT_ONCE
        self._talked = self._began

    def begin(self) -> None:
        """Start the clock."""
        self._tick()

    def end(self) -> None:
        """Stop the clock: the connection is gone."""
        if self._timer is not None:
            self._timer.cancel()

    def close(self) -> None:
        """Close the connection once the rest is written, or the peer takes too long for that."""
        self.end()
        self._connection.transport.close()
        self._timer = self._loop.call_later(_CLOSE_SECONDS, self._connection.abort)

    def heard(self) -> None:
        """The peer lives."""
        self._heard = self._loop.time()
        self._pinged = None

    def shook_hands(self) -> None:
        """The peer speaks HTTP/2."""
        self._has_preface = True
        self._idle_since = self._loop.time()
        self._tick()

    def stream_began(self) -> None:
        """The peer has a call."""
        self._strikes = 0

    def stream_ended(self) -> None:
        """A call has ended: a connection that is drained is closed after the last one."""
        if not self._connection.streams:
            self._idle_since = self._loop.time()
            if self._connection.last_answered != frames.MAX_ID:
                self._loop.call_soon(self._close_if_drained)

    def answered(self) -> None:
        """A call is answered: in return another one may be cancelled."""
        self._talk = min(_TALK_AT_ONCE, self._talk + 1)

    def spend(self, talk: float = 1.0) -> None:
        """Count what asks for work in vain, or raise ConnectionFaultError if it is too much."""
        now = self._loop.time()
        self._talk = min(_TALK_AT_ONCE, self._talk + (now - self._talked) * _TALK_PER_SECOND) - talk
        self._talked = now
        if self._talk < 0:
            raise frames.ConnectionFaultError(Fault.ENHANCE_YOUR_CALM, "too much idle talk")

    def pinged(self) -> None:
        """The peer has pinged. Raises ConnectionFaultError if it does so too often."""
        self.spend()
        now = self._loop.time()
        if now - self._last_ping < self._bounds.ping_seconds and not self._connection.streams:
            self._strikes += 1
            if self._strikes > _STRIKES:
                raise frames.ConnectionFaultError(Fault.ENHANCE_YOUR_CALM, "too_many_pings")
        self._last_ping = now

    def ping_answered(self, payload: bytes) -> None:
        """The peer has answered a ping, of ours or none."""
        self.spend()
        if payload == _DRAINING:
            self._refuse_further_calls()

    def drain(self, why: bytes) -> None:
        """Tell the peer to make its next calls on another connection.

        What it calls before it knows is answered: only after it has answered a ping too, a second
        GOAWAY says which call is the last one.
        """
        if not self._is_draining:
            self._is_draining = True
            self._connection.outbox.write(
                frames.goaway(frames.MAX_ID, Fault.NO_ERROR, why)
                + frames.frame(frames.PING, 0, 0, _DRAINING)
            )
            self._drained_at = self._loop.time() + self._bounds.grace_seconds
            self._tick()

    def _refuse_further_calls(self) -> None:
        connection = self._connection
        if self._is_draining and connection.last_answered == frames.MAX_ID:
            connection.last_answered = connection.last_stream
            connection.outbox.write(frames.goaway(connection.last_stream, Fault.NO_ERROR))
            self._close_if_drained()

    def _close_if_drained(self) -> None:
        if not self._connection.streams:
            self._connection.close()

    def _tick(self) -> None:
        """Do what is due, and look again when the next thing may be."""
        if self._connection.transport.is_closing():
            return
        self.end()
        now = self._loop.time()
        due = [at for at in self._dues(now) if at is not None]
        if due and not self._connection.transport.is_closing():
            self._timer = self._loop.call_at(min(due), self._tick)

    def _dues(self, now: float) -> list[float | None]:
        connection, bounds = self._connection, self._bounds
        if not self._has_preface:
            late = self._began + bounds.handshake_seconds
            if now >= late:
                connection.give_up("handshake")
            return [late]
        old = None if self._is_draining else self._old_at
        if old is not None and now >= old:
            self._old_at = None
            self.drain(b"max_age")
            return [self._drained_at]
        idle = None
        if bounds.idle_seconds and not connection.streams and not self._is_draining:
            idle = self._idle_since + bounds.idle_seconds
            if now >= idle:
                self.drain(b"max_idle")
                return [self._drained_at]
        elif bounds.idle_seconds and not self._is_draining:
            idle = now + bounds.idle_seconds
        if self._drained_at is not None and now >= self._drained_at:
            connection.close()
            return []
        return [old, idle, self._drained_at, self._alive(now)]

    def _alive(self, now: float) -> float:
        silence, answer = _DEAD_AFTER_SECONDS
        if self._pinged is not None:
            if now >= self._pinged + answer:
                self._connection.give_up("no_ping_answer")
            return self._pinged + answer
        if now >= self._heard + silence:
            self._pinged = now
            self._connection.outbox.write(frames.frame(frames.PING, 0, 0, _ALIVE))
            return now + answer
        return self._heard + silence
