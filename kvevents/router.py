"""Frames of all sources -> the right worker's stream, counted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kvevents.applying import EngineSettings
from kvevents.budget import Budget
from kvevents.frame_decoder import FrameDecoder
from kvevents.joining import Admission, ExpectedWorkers, frames_after, goes_on
from kvevents.lag import EventLag
from kvevents.pending import Owner, OwnsEverything, PendingFrame, PendingFrames
from kvevents.saved_streams import dump_streams, restore_streams
from kvevents.skipped import Skipped
from kvevents.stream import EventPolicy, StreamRegistry
from kvevents.transport import parse_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from indexer import Index, KeyScheme, Worker
    from kvevents.pending import Ownership
    from kvevents.source import Source
    from kvevents.stream import ReplayRunner, WorkerStream
    from kvevents.transport import Frame
    from kvevents.wire import Batch

_MAX_ROUTES = 8_192
_HEARTBEAT_PAYLOADS = (b"", b"\xc0")  # empty, or nil


class FrameRouter:
    """Routes frames to the streams of their workers. One thread; no frame makes it raise.

    Args:
        index: what the streams write to.
        scheme_of: model -> the scheme of its block keys.
        replays: runs the replays that streams request.
        policy: what to do with events, and when to trust them.
        ownership: decides whose events are applied here.
        on_change: called when blocks or the trust of any stream may have changed.
        settings_of: model -> what its engines were started with.
        reconnect: called with a source whose engine answers though no connection to it is up.
        peer_of: a source and a connection -> the peer's IP address; empty if it is not known.

    Attributes:
        expected: the workers that are expected behind sources.
        skipped: frames that were dropped before they reached a stream, or could not be decoded, by
            reason; streams count what they skip in their `applier.counts`.
        unfinished: frames that are applied in slices.
        budget: memory for everything that waits: frames and orphans.
        lag: how long frames take from their engines to the index.
        frames, heartbeats: how many frames have come, and how many of them were heartbeats.
        departed: workers forgotten for their silence, or because others needed their places.
    """

    def __init__(
        self,
        index: Index,
        scheme_of: Callable[[str], KeyScheme],
        replays: ReplayRunner,
        policy: EventPolicy | None = None,
        ownership: Ownership | None = None,
        on_change: Callable[[], None] = lambda: None,
        settings_of: Callable[[str], EngineSettings] = lambda _: EngineSettings(),
        reconnect: Callable[[Source], None] = lambda _: None,
        peer_of: Callable[[Source, int], str] = lambda _, __: "",
    ) -> None:
        self._index = index
        self.policy = policy or EventPolicy()
        self.ownership: Ownership = ownership or OwnsEverything()
        self.budget = Budget(self.policy.waiting_bytes)
        self._registry = StreamRegistry(
            index,
            scheme_of,
            settings_of,
            self.policy,
            self.budget,
            replays,
            self.ownership,
            on_change,
            reconnect,
            peer_of,
        )
        self._connections = self._registry.connections
        self.unfinished = self._registry.unfinished
        self._admission = Admission(self._registry, self.policy.fleet_limits, self._depart)
        self.expected = ExpectedWorkers(self._registry, self.ownership)
        self._routes: dict[tuple[Source, bytes, int | None], WorkerStream] = {}
        self._skipped = Skipped()
        self.skipped = self._skipped.counts
        limits = self.policy.frame_limits
        self._decoder = FrameDecoder(limits, self.unfinished, self._skipped, self._route)
        self._pending = PendingFrames(self.budget, self.skipped)
        self.frames = self.heartbeats = self.departed = 0
        self.lag = EventLag()

    @property
    def streams(self) -> Mapping[Worker, WorkerStream]:
        """The stream of every worker heard of or expected."""
        return self._registry.by_worker

    @property
    def trust_watchers(self) -> list[Callable[[Worker], None]]:
        """Those who are called with each worker whose trust may have changed."""
        return self._registry.trust_watchers

    def mark_evicted(self) -> None:
        """Downgrade the workers that have lost blocks to the memory limit."""
        self._registry.mark_evicted()

    # Connections

    def on_connected(self, source: Source, connection: int) -> None:
        """A connection of the source was made: its only one, unless the source is bound."""
        self._connections.on_connected(source, connection)
        self.expected.add_source(source)
        if not source.bind:
            for stream in list(self._connections.of(source).streams):
                self._registry.use_connection(stream, connection)

    def on_disconnected(self, source: Source, connection: int) -> None:
        """A connection of the source was lost."""
        for stream in self._connections.on_disconnected(source, connection):
            stream.on_disconnected(connection)

    def on_source_closed(self, source: Source) -> None:
        """Nothing is received from the source any more."""
        self._routes.clear()  # else they keep its streams in memory
        for connection in list(self._connections.of(source).live):
            self.on_disconnected(source, connection)

    def on_connections_refused(self, source: Source, reason: str, count: int) -> None:
        """Connections of a bound source were closed."""
        self._skipped.add(reason, source, "a connection was closed", count)

    # Frames

    def route(self, source: Source, parts: list[bytes], connection: int = 0) -> None:
        """Apply one message that came through `connection`, or count why not."""
        self.frames += 1
        try:
            frame = parse_frame(parts)
            if len(frame.payload) < 2 and frame.payload in _HEARTBEAT_PAYLOADS:
                self._on_heartbeat(frame, connection)
            else:
                self._decoder.decode(source, frame, connection)
        except Exception as error:  # noqa: BLE001 - one bad frame must not stop the others
            self._skipped.add_error(error, source)

    def _route(self, source: Source, frame: Frame, batch: Batch | None, connection: int) -> None:
        rank = None if batch is None else batch.rank
        stream = self._routes.get((source, frame.topic, rank))
        if stream is None or stream.is_closed:
            stream = self._find_stream(PendingFrame(source, frame, batch, connection), rank)
            if stream is None:
                return
            if rank is not None:
                if len(self._routes) >= _MAX_ROUTES:
                    self._routes.clear()
                self._routes[source, frame.topic, rank] = stream
        self._deliver(stream, frame, batch, connection)

    def _deliver(
        self, stream: WorkerStream, frame: Frame, batch: Batch | None, connection: int
    ) -> None:
        if stream.connection != connection:
            if self._registry.reject_rival(stream, connection):
                return
            self._registry.use_connection(stream, connection)
        stream.on_live_frame(frame, batch)
        if batch is not None and batch.timestamp:
            self.lag.observe(time.time() - batch.timestamp)

    def _on_heartbeat(self, frame: Frame, connection: int) -> None:
        """Every worker that speaks through the connection is alive."""
        self.heartbeats += 1
        for stream in list(self._connections.users_of(connection)):
            if stream.connection == connection:
                stream.on_heartbeat(frame)

    def _find_stream(self, pending: PendingFrame, rank: int | None) -> WorkerStream | None:
        """The stream of a frame; None if the frame waits for the worker's owner, or is dropped."""
        source = pending.source
        publisher = source.publisher_of(pending.frame.topic)
        worker = source.worker_of(publisher.pod, self.expected.rank_of(source, publisher, rank))
        stream = self.streams.get(worker)
        if stream is not None and self._registry.reject_rival(stream, pending.connection):
            return None
        if stream is None or stream.model != publisher.model:
            self._admission.check(worker, publisher.model, pending.connection)
        if stream is None or stream.source is not source:
            self._routes.clear()  # none may lead to a stream through a source that it has left
        if stream is not None:
            if stream.model == publisher.model:
                return self._registry.attach(source, worker, publisher.model)
            self._registry.forget(stream)
        match self.ownership.owner_of(worker, publisher.model, source):
            case Owner.HERE:
                if stream is None:
                    self._registry.forget_expected(source)
                return self._registry.attach(source, worker, publisher.model)
            case Owner.PENDING:
                self._pending.add(worker, pending)
            case Owner.ELSEWHERE:
                self.skipped["owned_elsewhere"] += 1
        return None

    # Ownership, where several replicas share an index

    def on_acquired(
        self,
        worker: Worker,
        model: str,
        source: Source,
        dumped: dict[str, Any] | None,
        note_of: Callable[[Worker, int | None], str] = lambda _, __: "",
    ) -> None:
        """This replica owns the worker, whose frames come from `source`: apply its events.

        Args:
            dumped: the stream to go on with; the index must hold what it held then. None: the
                stream starts anew.
            note_of: what the last owner was told, by worker and connection; see `goes_on`.
        """
        if worker in self.streams:
            return
        if worker in self._pending:
            self._registry.forget_expected(source)
        stream = self._registry.attach(source, worker, model)
        connection, kept = self.connection_of(worker, source), self._pending.pop(worker)
        if dumped is not None:
            suspicion = "restored"
            if goes_on(dumped, kept, source, connection, note_of(worker, connection)):
                kept, suspicion = frames_after(dumped, kept), ""
            stream.restore(dumped, connection, suspicion)
            if connection is not None:
                self._connections.add_user(connection, stream)
        elif connection is not None:
            self._registry.use_connection(stream, connection)
        for pending in kept:
            self._deliver(stream, pending.frame, pending.batch, pending.connection)
        self._registry.on_stream_changed()

    def connection_of(self, worker: Worker, source: Source) -> int | None:
        """The live connection through which a worker of another replica publishes, if any."""
        return self._pending.connection_of(worker, self._connections.of(source).live, source)

    def on_refused(self, worker: Worker) -> None:
        """Another replica owns the worker: drop its frames."""
        self._pending.drop(worker)

    def release(self, worker: Worker) -> None:
        """Apply no more events of the worker, which another replica will own; its blocks stay."""
        if (stream := self.streams.get(worker)) is not None:
            self._registry.remove(stream)

    # Snapshots

    def dump(self) -> list[dict[str, Any]]:
        """See `dump_streams`."""
        return dump_streams(self._registry)

    def restore(self, dumped: Sequence[dict[str, Any]]) -> None:
        """See `restore_streams`."""
        restore_streams(self._registry, self._index, dumped)

    # Time, and an operator's wishes

    def tick(self, now: float) -> None:
        """Poll what is due, and forget departed workers; `now` as of `time.monotonic`."""
        for stream in list(self.streams.values()):
            behind = stream.source_connections
            departs = self.policy.departed_after and (behind is None or behind.is_ready is None)
            if departs and (stream.silent_for(now) or 0.0) > self.policy.departed_after:
                self._depart(stream)
            else:
                stream.tick(now, self.policy.poll_seconds)

    def _depart(self, stream: WorkerStream) -> None:
        self._registry.log.info("worker_departed", pod=stream.worker.pod, rank=stream.worker.rank)
        self.departed += 1
        self._registry.forget(stream)

    def forget_pod(self, pod: str) -> bool:
        """Forget a pod at once; False if it was not known. If it speaks again, it joins late."""
        return self._registry.forget_pod(pod)

    def resync_pod(self, pod: str) -> list[tuple[Worker, bool]]:
        """Learn again what a pod holds; returns of each rank whether a replay was requested."""
        streams = list(self._registry.of_pod(pod))
        for stream in streams:
            stream.resync()
        return [(stream.worker, stream.sequencer.can_replay) for stream in streams]

    def on_under_delivery(self, worker: Worker) -> None:
        """The worker's engine reuses less than the index says that it holds."""
        if (stream := self.streams.get(worker)) is not None:
            stream.on_under_delivery()
