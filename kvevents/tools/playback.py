"""Publishes recorded frames again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import zmq

from kvevents.transport import SubscribeError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kvevents.tools.recording import RecordedFrame


# What the kernel holds when the socket is closed is lost if the subscriber's queue is still full as
# it finds out. The kernel would hold megabytes. Less than a TCP segment makes large frames crawl.
_SEND_BUFFER_BYTES = 65_536


class PlaybackError(RuntimeError):
    """No subscriber has come, or the subscriber is gone."""


def play(
    frames: Iterable[RecordedFrame],
    endpoint: str,
    *,
    bind: bool = False,
    speed: float = 0.0,
    timeout_seconds: float = 30.0,
) -> int:
    """Publish frames as an engine would; returns how many there were, once all are sent.

    Args:
        frames: as `read_recording` yields them.
        endpoint: a ZMQ address.
        bind: whether to bind the endpoint rather than connect to it.
        speed: 2.0 is twice as fast as recorded; 0 as fast as the subscriber takes them, without
            dropping any.
        timeout_seconds: how long to wait for a subscriber, and for it to take a frame.

    Raises:
        SubscribeError: the endpoint cannot be used.
        PlaybackError: the timeout is over.
    """
    milliseconds = int(timeout_seconds * 1000)
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        socket.setsockopt(zmq.LINGER, milliseconds)
        socket.setsockopt(zmq.SNDTIMEO, milliseconds)
        socket.setsockopt(zmq.XPUB_NODROP, 1)
        socket.setsockopt(zmq.SNDBUF, _SEND_BUFFER_BYTES)
        try:
            (socket.bind if bind else socket.connect)(endpoint)
        except zmq.ZMQError as error:
            verb = "bind" if bind else "connect to"
            raise SubscribeError(f"cannot {verb} {endpoint}: {error}") from error
        if not socket.poll(milliseconds):
            raise PlaybackError(f"no subscriber at {endpoint} (waited {timeout_seconds:g} s)")
        return _publish(socket, frames, speed)


def _publish(socket: zmq.Socket[bytes], frames: Iterable[RecordedFrame], speed: float) -> int:
    count = 0
    started_at = time.monotonic()
    first = None
    for frame in frames:
        if first is None:
            first = frame.received_at
        if speed:
            due = started_at + (frame.received_at - first) / speed
            time.sleep(max(0.0, due - time.monotonic()))
        try:
            socket.send_multipart(frame.parts)
        except zmq.Again:
            raise PlaybackError(
                f"frame {count + 1} was not taken: the subscriber is gone"
            ) from None
        count += 1
    return count
