"""Frames of all sources -> the right worker's stream, counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from indexer import TrustState, Worker
from kvevents.budget import Budget
from kvevents.pending import PendingFrame, PendingFrames
from kvevents.source import UnknownPublisherError
from kvevents.stream import (
    Applier,
    ClassesInUse,
    EngineSettings,
    Orphans,
    SourceConnections,
    StreamsByConnection,
    Trust,
    WorkerStream,
    class_of,
)
from kvevents.transport import FrameError, parse_frame
from kvevents.wire import PayloadError, decode_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from indexer import Index, KeyScheme
    from kvevents.pending import Ownership
    from kvevents.sequencing import ReplayRequest
    from kvevents.source import Publisher, Source
    from kvevents.transport import Frame
    from kvevents.wire import Batch

_MOST_ROUTES = 65_536
_MOST_LOST = 4096
_NOTHING = (b"", b"\xc0")  # payloads of heartbeats: empty, or nil

_log = structlog.get_logger("kvatlas.kvevents")


@dataclass(frozen=True)
class EventPolicy:
    """What to do with events, and when to trust them.

    count_copies: see `Index`. forget_on_doubt: drop what may be gone rather than keep and mark it.
    stale_after, departed_after: seconds without a sign of life after which a pod is marked, and
    forgotten; 0 for never. poll_seconds: how often engines are asked for what we may have missed.
    waiting_bytes: memory for all that has to wait: frames for replays, blocks for their parents.
    """

    count_copies: bool = True
    forget_on_doubt: bool = False
    stale_after: float = 60.0
    departed_after: float = 0.0
    poll_seconds: float = 10.0
    waiting_bytes: int = 256 * 1024**2


class AsksForReplays(Protocol):
    """Somebody who asks engines for replays on behalf of streams."""

    def ask(self, stream: WorkerStream, ask: ReplayRequest) -> None:
        """Ask for `stream`, instead of what it had asked for before."""
        ...

    def leave(self, stream: WorkerStream) -> None:
        """The stream is not interested any more."""
        ...


class FrameRouter:
    """Applies frames to the index. Synchronous, one thread; never raises for what a frame says.

    replays: told which stream wants what replayed. skipped: frames that belong to no worker, by
    reason; those of a worker are in its stream's `applier.tally`. waiting: memory in use for what
    has to wait. custody: says whose events are applied here; None: all. changed: told whenever
    something of a stream may have. settings_of: model -> what its engines were started with.
    reconnect: told of a source whose engine answers although no connection to it is up.
    """

    def __init__(
        self,
        index: Index,
        scheme_of: Callable[[str], KeyScheme],
        replays: AsksForReplays,
        policy: EventPolicy | None = None,
        custody: Ownership | None = None,
        changed: Callable[[], None] = lambda: None,
        settings_of: Callable[[str], EngineSettings] = lambda _: EngineSettings(),
        reconnect: Callable[[Source], None] = lambda _: None,
    ) -> None:
        self._index = index
        self._scheme_of = scheme_of
        self._settings_of = settings_of
        self._reconnect = reconnect
        self._live_connections: set[int] = set()
        self._lost_connections: dict[
            int, None
        ] = {}  # newest connections that were, of which messages may come
        self._by_connection = StreamsByConnection()
        self._replays = replays
        self.policy = policy or EventPolicy()
        self.budget = Budget(self.policy.waiting_bytes)
        self._pending = None if custody is None else PendingFrames(custody, self.budget)
        self._on_change = changed
        self._streams: dict[Worker, WorkerStream] = {}
        self._connections_by_source: dict[Source, SourceConnections] = {}
        self._classes: dict[str, ClassesInUse] = {}
        self._routes: dict[tuple[Source, bytes, int | None], WorkerStream] = {}
        self._warned: set[tuple[str, str]] = set()
        self.skipped: Counter[str] = Counter() if self._pending is None else self._pending.dropped
        self.frames = 0
        self.heartbeats = 0
        self.departed = 0

    @property
    def streams(self) -> Mapping[Worker, WorkerStream]:
        """The stream of every worker heard of or expected."""
        return self._streams

    # Sources

    def add_source(self, source: Source) -> None:
        """Register a source, and its pod if the configuration names it, before it has spoken."""
        self._connections_of(source)
        model = source.model or source.default_model
        if source.pod and model and (source.rank is not None or self._is_only(source)):
            self._expect(source, Worker(source.pod, source.rank or 0), model)

    def _expect(self, source: Source, worker: Worker, model: str) -> None:
        if self._pending is not None and worker not in self._streams:
            self._pending.expect(worker, model, source)
            return
        stream = self._stream_of(source, worker, model)
        if stream.connection is None and not source.bind:
            for connection in self._connections_of(source).live:
                self._set_connection(stream, connection)

    def _is_only(self, source: Source) -> bool:
        """Whether no other source is of the same pod: else the ranks are not known beforehand."""
        return all(
            other is source or other.pod != source.pod for other in self._connections_by_source
        )

    def knows_publisher(self, source: Source) -> bool:
        """Whether it is known whose frames come from a source that the pod was configured for."""
        if not source.pod or (source.model and source.rank is not None):
            return True
        return any(stream.sequencer.begun for stream in self._connections_of(source).streams)

    def identify_publisher(self, source: Source, topic: bytes, rank: int | None) -> None:
        """The replay socket of a source has answered, and so said who is there.

        Raises UnknownSpeakerError if it does not say enough.
        """
        speaker = source.publisher_of(topic)
        worker = Worker(speaker.pod, self._rank_of(source, speaker, rank))
        known = self._streams.get(worker)
        if (
            known is None
            or known.model != speaker.model
            or known.source_connections is not self._connections_of(source)
        ):
            self._drop_expectation(source)
            self._expect(source, worker, speaker.model)

    def _connections_of(self, source: Source) -> SourceConnections:
        link = self._connections_by_source.get(source)
        if link is None:
            link = self._connections_by_source[source] = SourceConnections()
        return link

    def on_connected(self, source: Source, connection: int) -> None:
        """A connection of the source was made: the only one there is, unless it is bound."""
        link = self._connections_of(source)
        link.live.add(connection)
        self._live_connections.add(connection)
        self.add_source(source)
        if not source.bind:
            for stream in list(link.streams):
                self._set_connection(stream, connection)

    def on_source_closed(self, source: Source) -> None:
        """Nobody listens to the source any more."""
        for connection in list(self._connections_of(source).live):
            self.on_disconnected(source, connection)

    def on_disconnected(self, source: Source, connection: int) -> None:
        """A connection of the source was lost."""
        self._connections_of(source).live.discard(connection)
        self._live_connections.discard(connection)
        self._lost_connections[connection] = None
        if len(self._lost_connections) > _MOST_LOST:
            del self._lost_connections[next(iter(self._lost_connections))]
        for stream in self._by_connection.pop(connection):
            stream.on_disconnected(connection)

    def _set_connection(self, stream: WorkerStream, connection: int) -> None:
        """`stream` speaks through `connection` from now on; some may be left of a lost one."""
        is_lost = connection in self._lost_connections
        if stream.connection is not None and stream.connection != connection:
            self._by_connection.discard(stream.connection, stream)
        if not is_lost:
            self._by_connection.add(connection, stream)
        stream.on_connection_changed(connection, is_lost=is_lost)

    def _on_answer_without_connection(self, stream: WorkerStream) -> None:
        """An engine answers to which no connection is up."""
        if stream.source is not None and not stream.source.bind:
            self._reconnect(stream.source)

    # Frames

    def route(self, source: Source, parts: list[bytes], connection: int = 0) -> None:
        """Apply one message that came from `source` through `connection`, or count why not."""
        self.frames += 1
        try:
            self._take(source, parse_frame(parts), connection)
        except (FrameError, UnknownPublisherError) as error:
            self._skip(error.reason, source, str(error))
        except Exception:  # noqa: BLE001 - one bad frame must not stop the others
            self.skipped["internal_error"] += 1
            _log.exception("frame_not_applied", endpoint=source.endpoint)

    def _take(self, source: Source, frame: Frame, connection: int) -> None:
        if frame.payload in _NOTHING:
            self._heartbeat(source, frame, connection)
            return
        try:
            batch = decode_batch(frame.payload)
        except PayloadError as error:
            batch = None
            self._skip(error.reason, source, str(error))
        rank = None if batch is None else batch.rank
        stream = self._routes.get((source, frame.topic, rank))
        if stream is None:
            stream = self._route(PendingFrame(source, frame, batch, connection), rank)
            if stream is None:
                return
            if rank is not None and len(self._routes) < _MOST_ROUTES:
                self._routes[source, frame.topic, rank] = stream
        self._deliver(stream, frame, batch, connection)

    def _deliver(
        self, stream: WorkerStream, frame: Frame, batch: Batch | None, connection: int
    ) -> None:
        if stream.connection != connection:
            if self._contradicts(stream, connection):
                return
            self._set_connection(stream, connection)
        stream.on_live_frame(frame, batch)

    def _contradicts(self, stream: WorkerStream, connection: int) -> bool:
        """Whether another live connection than the worker's speaks in its name: it is not heard."""
        contradicts = (
            connection != stream.connection
            and stream.is_connected
            and connection not in self._lost_connections
        )
        if contradicts:
            self._by_connection.add(connection, stream)
            stream.on_rival(connection)
        return contradicts

    def _heartbeat(self, source: Source, frame: Frame, connection: int) -> None:
        """A frame without events: whoever speaks through the connection is alive."""
        self.heartbeats += 1
        for stream in list(self._connections_of(source).streams):
            if stream.connection == connection:
                stream.on_heartbeat(frame)

    def mark_evicted(self) -> None:
        """Mark the workers that have lost blocks to the memory bound."""
        for worker, tier in self._index.evicted():
            stream = self._streams.get(worker)
            if stream is not None:
                stream.trust.downgrade(
                    TrustState.PARTIAL, "evicted", [class_of(tier)], mendable=False
                )
            elif self._pending is not None:
                self._pending.ownership.on_evicted(worker)

    def _on_applied(self) -> None:
        self.mark_evicted()
        self._on_change()

    def _route(self, waiting: PendingFrame, said_rank: int | None) -> WorkerStream | None:
        """Whose stream a frame is of; None if it waits until that is known, or was dropped."""
        source = waiting.source
        speaker = source.publisher_of(waiting.frame.topic)
        worker = Worker(speaker.pod, self._rank_of(source, speaker, said_rank))
        self._routes.clear()  # a worker may have changed its model: let no old stream linger
        stream = self._streams.get(worker)
        if stream is not None and self._contradicts(stream, waiting.connection):
            return None
        if self._pending is None:
            if stream is None:
                self._drop_expectation(source)
            return self._stream_of(source, worker, speaker.model)
        if stream is not None and stream.model == speaker.model:
            self._attach(stream, source)
            return stream
        if stream is not None:
            self._forget(stream)
        self._pending.add(worker, speaker.model, waiting)
        return None

    def _rank_of(self, source: Source, speaker: Publisher, said: int | None) -> int:
        rank = source.rank if source.rank is not None else said
        if rank is not None:
            return rank
        # not said, or the payload broke off before it
        ranks = [worker.rank for worker in self._streams if worker.pod == speaker.pod]
        if len(ranks) > 1:
            raise UnknownPublisherError(
                "unknown_rank", f"a frame of pod {speaker.pod} does not say of which rank it is"
            )
        return ranks[0] if ranks else 0

    # Workers whose events are applied by one of several replicas

    def on_acquired(
        self, worker: Worker, model: str, source: Source, dumped: dict[str, Any] | None
    ) -> None:
        """The worker's events are applied here from now on.

        dumped: the stream to go on with; the index holds what it held then. None: it starts anew.
        """
        if self._pending is None or worker in self._streams:
            return
        waiting = self._pending.pop(worker)
        if waiting:
            self._drop_expectation(source)
        stream = self._stream_of(source, worker, model)
        connection = None if source.bind else next(iter(self._connections_of(source).live), None)
        if dumped is not None:
            stream.restore(dumped, connection)
            if connection is not None:
                self._by_connection.add(connection, stream)
        elif connection is not None:
            self._set_connection(stream, connection)
        for each in waiting:
            self._deliver(stream, each.frame, each.batch, each.connection)
        self._on_applied()

    def on_refused(self, worker: Worker) -> None:
        """The worker's events are applied by another replica."""
        if self._pending is not None:
            self._pending.drop(worker)

    def release(self, worker: Worker) -> None:
        """The worker's events are applied by another replica from now on; its blocks stay."""
        stream = self._streams.get(worker)
        if stream is not None:
            self._release(stream)

    def _drop_expectation(self, source: Source) -> None:
        """The pod behind `source` has a rank other than the one that was expected."""
        if source.pod and source.rank is None:
            for stream in list(self._connections_of(source).streams):
                if not stream.live_frames and not stream.sequencer.begun:
                    self._forget(stream)

    def _stream_of(self, source: Source, worker: Worker, model: str) -> WorkerStream:
        stream = self._streams.get(worker)
        if stream is not None and stream.model != model:
            self._forget(stream)
            stream = None
        if stream is None:
            stream = self._add_worker(worker, model)
            _log.info("worker_joined", pod=worker.pod, rank=worker.rank, model=model)
        self._attach(stream, source)
        return stream

    def _attach(self, stream: WorkerStream, source: Source) -> None:
        """`stream` speaks through `source`."""
        stream.source = source
        stream.applier.extra_strings = source.extra_strings
        stream.sequencer.can_replay = stream.replay_endpoint is not None
        link = self._connections_of(source)
        if stream.source_connections is not link:
            if stream.source_connections is not None:
                stream.source_connections.streams.discard(stream)
            stream.source_connections = link
            link.streams.add(stream)

    def _add_worker(self, worker: Worker, model: str) -> WorkerStream:
        self._index.join(worker, model)
        policy = self.policy
        trust = Trust(self._classes.setdefault(model, ClassesInUse()))
        orphans = Orphans(self.budget, count_copies=policy.count_copies)
        applier = Applier(
            self._index,
            worker,
            self._scheme_of(model),
            trust,
            orphans,
            count_copies=policy.count_copies,
            settings=self._settings_of(model),
        )
        stream = self._streams[worker] = WorkerStream(
            worker,
            model,
            applier,
            self.budget,
            self._replays.ask,
            self._on_applied,
            forget_on_doubt=policy.forget_on_doubt,
            stale_after=policy.stale_after,
            up=self._live_connections,
            answered=self._on_answer_without_connection,
        )
        return stream

    def _skip(self, reason: str, source: Source, detail: str) -> None:
        self.skipped[reason] += 1
        if (reason, source.endpoint) not in self._warned:
            self._warned.add((reason, source.endpoint))
            _log.warning("frame_skipped", reason=reason, endpoint=source.endpoint, detail=detail)

    # Snapshots

    def dump(self) -> list[dict[str, Any]]:
        """What `restore` takes, of every stream that can be gone on with."""
        return [dumped for s in self._streams.values() if (dumped := s.dump()) is not None]

    def restore(self, dumped: Sequence[dict[str, Any]]) -> None:
        """Go on with the streams that were dumped; what else is in the index leaves it.

        Sources must have been registered; a stream whose source is not configured any more is left
        out. Raises what a malformed dump makes it raise.
        """
        restored = set()
        for of_stream in dumped:
            worker, model = Worker(*of_stream["worker"]), of_stream["model"]
            source = self._source_of(of_stream["endpoint"], worker.pod, model)
            if source is not None:
                if worker not in self._streams:
                    self._drop_expectation(source)
                self._stream_of(source, worker, model).restore(of_stream)
                restored.add(worker)
        for worker in [blocks.worker for blocks in self._index.workers()]:
            if worker not in restored:
                self._index.leave(worker)
                if worker in self._streams:
                    self._index.join(worker, self._streams[worker].model)

    def _source_of(self, endpoint: str, pod: str, model: str) -> Source | None:
        for source in self._connections_by_source:
            if source.endpoint == endpoint and source.could_publish(pod, model):
                return source
        return None

    # Departures

    def tick(self, now: float) -> None:
        """Time has passed (`time.monotonic`): forget who has departed, ask those who may know."""
        for stream in list(self._streams.values()):
            silent = stream.silent_for(now)
            if self.policy.departed_after and (silent or 0.0) > self.policy.departed_after:
                _log.info("worker_departed", pod=stream.worker.pod, rank=stream.worker.rank)
                self.departed += 1
                self._forget(stream)
            else:
                stream.tick(now, self.policy.poll_seconds)

    def forget_pod(self, pod: str) -> bool:
        """The pod is gone from the scores at once; False if it was not known.

        If it speaks again it is a pod that was joined late.
        """
        leaving = [stream for worker, stream in self._streams.items() if worker.pod == pod]
        for stream in leaving:
            self._forget(stream)
        return bool(leaving)

    def resync_pod(self, pod: str) -> list[tuple[Worker, bool]]:
        """Learn anew what the pod holds; says of each rank whether a replay was asked for."""
        found = [stream for worker, stream in self._streams.items() if worker.pod == pod]
        for stream in found:
            stream.resync()
        return [(stream.worker, stream.sequencer.can_replay) for stream in found]

    def _forget(self, stream: WorkerStream) -> None:
        self._release(stream)
        self._index.leave(stream.worker)
        if self._pending is not None:
            self._pending.ownership.on_left(stream.worker)

    def _release(self, stream: WorkerStream) -> None:
        self._replays.leave(stream)
        for connection in [*stream.rivals, stream.connection]:
            if connection is not None:
                self._by_connection.discard(connection, stream)
        stream.close()
        self._classes[stream.model].unsubscribe(stream.trust)
        del self._streams[stream.worker]
        self._routes.clear()
