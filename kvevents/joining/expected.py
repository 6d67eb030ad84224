"""The workers that are expected behind a source before any frame of theirs has come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvevents.pending import Owner
from kvevents.source import UnknownPublisherError

if TYPE_CHECKING:
    from indexer import Worker
    from kvevents.pending import Ownership
    from kvevents.source import Publisher, Source
    from kvevents.stream import StreamRegistry


class ExpectedWorkers:
    """Makes the streams of workers that the configuration or a probe names."""

    def __init__(self, registry: StreamRegistry, ownership: Ownership) -> None:
        self._registry = registry
        self._connections = registry.connections
        self._ownership = ownership

    def add_source(self, source: Source) -> None:
        """Register a source, and expect its pod if the configuration names it."""
        self._connections.of(source)
        model = source.model or source.default_model
        if source.pod and model and (source.rank is not None or self._is_only_source(source)):
            self._expect(source, source.worker_of(source.pod, source.rank or 0), model)

    def remove_source(self, source: Source) -> None:
        """Forget a source that is not listened to any more, and the workers that publish there."""
        self._registry.forget_source(source)

    def set_ready(self, source: Source, is_ready: bool | None) -> None:
        """The pod behind a source takes requests, or takes none; None: nobody discovers it."""
        self._registry.set_ready(source, is_ready)

    def _is_only_source(self, source: Source) -> bool:
        """Whether no other source names the same pod: else its ranks are not known in advance."""
        return all(
            other is source or other.pod != source.pod for other in self._connections.sources
        )

    def _expect(self, source: Source, worker: Worker, model: str) -> None:
        is_here = worker in self._registry.by_worker or (
            self._ownership.owner_of(worker, model, source) is Owner.HERE
        )
        if not is_here:
            return
        stream = self._registry.attach(source, worker, model)
        if stream.connection is None and not source.bind:
            for connection in self._connections.of(source).live:
                self._registry.use_connection(stream, connection)

    def knows_publisher(self, source: Source) -> bool:
        """Whether it is known which worker is behind a source that names its pod."""
        if not source.pod or (source.model and source.rank is not None):
            return True
        return any(s.sequencer.has_started for s in self._connections.of(source).streams)

    def identify_publisher(self, source: Source, topic: bytes, rank: int | None) -> None:
        """Learn from a replayed frame which worker is behind a source.

        Raises UnknownPublisherError if topic and rank do not tell.
        """
        publisher = source.publisher_of(topic)
        worker = source.worker_of(publisher.pod, self.rank_of(source, publisher, rank))
        stream = self._registry.by_worker.get(worker)
        if (
            stream is None
            or stream.model != publisher.model
            or stream.source_connections is not self._connections.of(source)
        ):
            self._registry.forget_expected(source)
            self._expect(source, worker, publisher.model)

    def rank_of(self, source: Source, publisher: Publisher, rank: int | None) -> int:
        """The rank of a frame: as configured, as its payload says, or the pod's only rank.

        Raises UnknownPublisherError if the pod has several.
        """
        if source.rank is not None:
            return source.rank
        if rank is not None:
            return rank
        # The payload does not say it, or broke off before.
        ranks = [stream.worker.rank for stream in self._registry.of_pod(publisher.pod)]
        if len(ranks) > 1:
            raise UnknownPublisherError(
                "unknown_rank", f"a frame of pod {publisher.pod} does not say of which rank it is"
            )
        return ranks[0] if ranks else 0
