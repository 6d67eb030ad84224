"""Recorded frames, published once more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import zmq

from kvevents.transport import SubscribeError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kvevents.tools.recording import RecordedFrame


class PlaybackError(RuntimeError):
    """Nobody listened, or nobody listened any more."""


def play(
    frames: Iterable[RecordedFrame],
    endpoint: str,
    *,
    bind: bool = False,
    speed: float = 0.0,
    patience: float = 30.0,
) -> int:
    """Publish `frames` as an engine would, and return how many there were once all are sent.

    bind: listen at `endpoint` rather than connect to it. speed: 2.0 for twice as fast as they were
    recorded, 0 for as fast as they are taken; nothing is dropped for that. patience: seconds to
    wait for somebody to listen, and for a frame to be taken. Raises SubscribeError if the endpoint
    cannot be had, PlaybackError if patience ends.
    """
    milliseconds = int(patience * 1000)
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        socket.setsockopt(zmq.LINGER, milliseconds)
        socket.setsockopt(zmq.SNDTIMEO, milliseconds)
        socket.setsockopt(zmq.XPUB_NODROP, 1)
        try:
            (socket.bind if bind else socket.connect)(endpoint)
        except zmq.ZMQError as error:
            doing = "bind" if bind else "connect to"
            raise SubscribeError(f"cannot {doing} {endpoint}: {error}") from error
        if not socket.poll(milliseconds):
            raise PlaybackError(f"nobody listens at {endpoint} (waited {patience:g} s)")
        return _publish(socket, frames, speed)


def _publish(socket: zmq.Socket[bytes], frames: Iterable[RecordedFrame], speed: float) -> int:
    count = 0
    began = time.monotonic()
    first = None
    for frame in frames:
        if first is None:
            first = frame.received_at
        if speed:
            due = began + (frame.received_at - first) / speed
            time.sleep(max(0.0, due - time.monotonic()))
        try:
            socket.send_multipart(frame.parts)
        except zmq.Again:
            raise PlaybackError(f"frame {count + 1} was not taken: the listener is gone") from None
        count += 1
    return count
