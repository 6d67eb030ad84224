"""Which connections are live, which sources they belong to, and which streams use them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from indexer import Worker
    from kvevents.source import Source
    from kvevents.stream.worker import WorkerStream

_MAX_LOST = 4096


@dataclass
class SourceConnections:
    """The connections of one source."""

    live: set[int] = field(default_factory=set)
    streams: set[WorkerStream] = field(default_factory=set)
    """The streams that speak, or are expected to speak, through one of them."""
    is_ready: bool | None = None
    """Whether the pod behind the source takes requests; None: nobody has discovered it."""


class ConnectionTable:
    """All connections, by the numbers that `transport.connections` gives them.

    Attributes:
        live: the connections that are up, of all sources.
    """

    def __init__(self) -> None:
        self.live: set[int] = set()
        self._by_source: dict[Source, SourceConnections] = {}
        # Messages of a lost connection may still arrive; the newest of these are remembered.
        self._lost: dict[int, None] = {}
        # A lost connection must not cost a look at every stream there is.
        self._streams: dict[int, set[WorkerStream]] = {}

    @property
    def sources(self) -> Iterable[Source]:
        """The sources that were ever used."""
        return self._by_source

    def of(self, source: Source) -> SourceConnections:
        """The connections of a source."""
        connections = self._by_source.get(source)
        if connections is None:
            connections = self._by_source[source] = SourceConnections()
        return connections

    def remove_source(self, source: Source) -> None:
        """Forget a source whose connections are closed."""
        self._by_source.pop(source, None)

    def find_source(self, endpoint: str, worker: Worker, model: str) -> Source | None:
        """The source at `endpoint` that can publish frames of this worker and model, if any."""
        for source in self._by_source:
            if source.endpoint == endpoint and source.could_publish(worker, model):
                return source
        return None

    def is_lost(self, connection: int) -> bool:
        """Whether a connection is known to be lost."""
        return connection in self._lost

    def on_connected(self, source: Source, connection: int) -> None:
        """A connection of the source was made."""
        self.of(source).live.add(connection)
        self.live.add(connection)

    def on_disconnected(self, source: Source, connection: int) -> AbstractSet[WorkerStream]:
        """A connection of the source was lost; returns the streams that have used it."""
        self.of(source).live.discard(connection)
        self.live.discard(connection)
        self._lost[connection] = None
        if len(self._lost) > _MAX_LOST:
            del self._lost[next(iter(self._lost))]
        return self._streams.pop(connection, frozenset())

    def add_user(self, connection: int, stream: WorkerStream) -> None:
        """`stream` uses the connection, or its worker's name is used there by somebody else."""
        if connection not in self._lost:
            self._streams.setdefault(connection, set()).add(stream)

    def users_of(self, connection: int) -> AbstractSet[WorkerStream]:
        """The streams that have something to do with the connection."""
        return self._streams.get(connection, frozenset())

    def count_users(self, connection: int) -> int:
        """How many streams have something to do with the connection."""
        return len(self._streams.get(connection, ()))

    def remove_user(self, connection: int, stream: WorkerStream) -> None:
        """`stream` has nothing to do with the connection any more."""
        streams = self._streams.get(connection)
        if streams is not None:
            streams.discard(stream)
            if not streams:
                del self._streams[connection]
