"""When a worker was last heard."""

from __future__ import annotations

import time


class SignsOfLife:
    """The times of a worker's newest signs of life (`time.monotonic`), None before the first."""

    __slots__ = ("connected_until", "last_answer", "last_frame", "last_heartbeat", "restored_at")

    def __init__(self) -> None:
        self.last_frame: float | None = None
        """Of a live frame."""
        self.last_heartbeat: float | None = None
        self.last_answer: float | None = None
        """Of an answer to a replay."""
        self.restored_at: float | None = None
        """When the stream was restored, if it was."""
        self.connected_until: float | None = None
        """When the worker's connection was lost, if it was."""

    def on_frame(self) -> float:
        """A live frame has come; returns when."""
        self.last_frame = now = time.monotonic()
        return now

    def on_heartbeat(self) -> None:
        """A heartbeat has come."""
        self.last_heartbeat = time.monotonic()

    def on_disconnected(self) -> None:
        """The worker's connection, which was a sign of life itself, was lost."""
        self.connected_until = time.monotonic()

    def on_answer(self) -> None:
        """The replay socket has answered."""
        self.last_answer = time.monotonic()

    def on_restored(self) -> None:
        """The stream goes on where another process had got to."""
        self.restored_at = time.monotonic()

    def silent_for(self, now: float) -> float | None:
        """Seconds since the newest sign; None if there never was one."""
        signs = (
            self.last_frame,
            self.last_heartbeat,
            self.last_answer,
            self.restored_at,
            self.connected_until,
        )
        newest = max((sign for sign in signs if sign is not None), default=None)
        return None if newest is None else now - newest
