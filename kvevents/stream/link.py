"""The connections of sources, and who speaks through them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvevents.stream.worker import WorkerStream


@dataclass
class SourceConnections:
    """up: the connections there are. streams: those that speak, or will, through one of them."""

    live: set[int] = field(default_factory=set)
    streams: set[WorkerStream] = field(default_factory=set)


class StreamsByConnection:
    """The streams that have spoken through each connection that is not lost yet.

    The loss of a connection must not cost a look at every stream there is.
    """

    def __init__(self) -> None:
        self._streams: dict[int, set[WorkerStream]] = {}

    def add(self, connection: int, stream: WorkerStream) -> None:
        """`stream` speaks, or others speak in its name, through `connection`."""
        self._streams.setdefault(connection, set()).add(stream)

    def pop(self, connection: int) -> set[WorkerStream]:
        """Remove a connection that was lost; returns the streams."""
        return self._streams.pop(connection, set())

    def discard(self, connection: int, stream: WorkerStream) -> None:
        """`stream` has nothing to do with `connection` any more."""
        streams = self._streams.get(connection)
        if streams is not None:
            streams.discard(stream)
            if not streams:
                del self._streams[connection]
