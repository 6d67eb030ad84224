"""When a worker was last heard."""

from __future__ import annotations

import time


class SignsOfLife:
    """The times of a worker's newest signs of life (`time.monotonic`), None before the first."""

    __slots__ = ("last_answer", "last_frame", "restored_at")

    def __init__(self) -> None:
        self.last_frame: float | None = None
        """Of a live frame or heartbeat."""
        self.last_answer: float | None = None
        """Of an answer to a replay."""
        self.restored_at: float | None = None
        """When the stream was restored, if it was."""

    def on_frame(self) -> None:
        """A live frame has come."""
        self.last_frame = time.monotonic()

    def on_answer(self) -> None:
        """The replay socket has answered."""
        self.last_answer = time.monotonic()

    def on_restored(self) -> None:
        """The stream goes on where another process had got to."""
        self.restored_at = time.monotonic()

    def silent_for(self, now: float) -> float | None:
        """Seconds since the newest sign; None if there never was one."""
        signs = (self.last_frame, self.last_answer, self.restored_at)
        newest = max((sign for sign in signs if sign is not None), default=None)
        return None if newest is None else now - newest
