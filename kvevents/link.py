"""What the connections of one SUB socket say about those who speak through it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvevents.stream import WorkerStream


class Link:
    """The connections of one source.

    shared: many publishers connect to it, and which of them came or went cannot be told. But one
    that has spoken after a connection was lost, and before another was made, was not the one.
    connections: how many there are.
    """

    def __init__(self, *, shared: bool) -> None:
        self.shared = shared
        self.connections = 0
        self.streams: set[WorkerStream] = set()
        self._suspects: set[WorkerStream] = set()
        self._met = False
        self._last_loss = float("-inf")

    def connected(self) -> list[WorkerStream]:
        """A connection was made; returns the streams whose publisher may be another one now."""
        self.connections += 1
        doubtful = list(self._suspects if self.shared else self.streams) if self._met else []
        self._met = True
        self._suspects.clear()
        return doubtful

    def disconnected(self, now: float) -> None:
        """A connection was lost; every frame that came through it was taken before this call."""
        self.connections = max(0, self.connections - 1)
        self._last_loss = now
        self._suspects |= self.streams

    def spoke(self, stream: WorkerStream) -> None:
        """A frame has come through a connection that is up."""
        self._suspects.discard(stream)

    def leave(self, stream: WorkerStream) -> None:
        """The stream speaks through this link no more."""
        self.streams.discard(stream)
        self._suspects.discard(stream)

    @property
    def has_suspects(self) -> bool:
        """Whether `spoke` would make a difference."""
        return bool(self._suspects)

    def is_up_for(self, last_event: float | None) -> bool:
        """Whether a publisher last heard at `last_event` is connected still."""
        if not self.shared:
            return self.connections > 0
        return self.connections > 0 and last_event is not None and last_event > self._last_loss
