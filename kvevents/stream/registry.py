"""The streams of all workers: made, found, connected and removed here."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

import structlog

from kvevents.applying import Applier, Orphans
from kvevents.limited_log import LimitedLog
from kvevents.stream.connections import ConnectionTable
from kvevents.stream.environment import StreamEnvironment
from kvevents.stream.unfinished import Unfinished
from kvevents.stream.worker import WorkerStream
from kvevents.trust import ClassesInUse, Trust

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from indexer import Index, KeyScheme, Worker
    from kvevents.applying import EngineSettings
    from kvevents.budget import Budget
    from kvevents.pending import Ownership
    from kvevents.sequencing import ReplayRequest
    from kvevents.source import Source
    from kvevents.stream.environment import EventPolicy

_log = structlog.get_logger("kvatlas.kvevents")


class ReplayRunner(Protocol):
    """Runs the replays that streams request."""

    def start(self, stream: WorkerStream, request: ReplayRequest) -> None:
        """Run a replay for `stream`, in place of the one that is under way."""
        ...

    def cancel(self, stream: WorkerStream) -> None:
        """Cancel the stream's replay, if there is one."""
        ...


class StreamRegistry:
    """One stream for each worker.

    Args:
        index: what the workers join.
        scheme_of: model -> the scheme of its block keys.
        settings_of: model -> what its engines were started with.
        policy: what to do with events, and when to trust them.
        budget: memory for everything that waits.
        replays: runs the replays that streams request.
        ownership: is told of workers that leave or lose blocks.
        on_change: called when blocks or the trust of any stream may have changed.
        reconnect: called with a source whose engine answers though no connection to it is up.
        peer_of: a source and a connection -> the peer's IP address; empty if it is not known.

    Attributes:
        connections: the connections of all sources.
        unfinished: frames that are applied in slices.
        log: for what happens to the workers.
        trust_watchers: called with each worker whose trust may have changed.
    """

    def __init__(
        self,
        index: Index,
        scheme_of: Callable[[str], KeyScheme],
        settings_of: Callable[[str], EngineSettings],
        policy: EventPolicy,
        budget: Budget,
        replays: ReplayRunner,
        ownership: Ownership,
        on_change: Callable[[], None],
        reconnect: Callable[[Source], None],
        peer_of: Callable[[Source, int], str],
    ) -> None:
        self._index = index
        self._scheme_of = scheme_of
        self._settings_of = settings_of
        self._replays = replays
        self._ownership = ownership
        self._on_change = on_change
        self._reconnect, self._peer_of = reconnect, peer_of
        self._peers: dict[Worker, str] = {}
        self.connections, self.unfinished = ConnectionTable(), Unfinished()
        self.log = LimitedLog(_log)
        self.trust_watchers: list[Callable[[Worker], None]] = []
        self._environment = StreamEnvironment(
            policy,
            budget,
            self._peers,
            self.connections.live,
            self.log,
            self.unfinished,
            replays.start,
            self.on_stream_changed,
            self._on_answer_without_connection,
            self._on_trust_changed,
        )
        self._streams: dict[Worker, WorkerStream] = {}
        self._pods: dict[str, dict[int, WorkerStream]] = {}  # by rank
        self._models: Counter[str] = Counter()  # streams of each
        self._classes: dict[str, ClassesInUse] = {}  # by model

    @property
    def by_worker(self) -> Mapping[Worker, WorkerStream]:
        """All streams."""
        return self._streams

    def of_pod(self, pod: str) -> Iterator[WorkerStream]:
        """The streams of a pod's ranks."""
        return iter(self._pods.get(pod, {}).values())

    @property
    def pod_count(self) -> int:
        """How many pods there are."""
        return len(self._pods)

    @property
    def model_count(self) -> int:
        """How many models they serve."""
        return len(self._models)

    def count_of_model(self, model: str) -> int:
        """How many streams there are for `model`."""
        return self._models[model]

    # Streams come and go

    def attach(self, source: Source, worker: Worker, model: str) -> WorkerStream:
        """The worker's stream, made if there is none for `model`; its frames come from `source`."""
        stream = self._streams.get(worker)
        if stream is not None and stream.model != model:
            self.forget(stream)
            stream = None
        if stream is None:
            stream = self._make(worker, model)
        stream.attach(source, self.connections.of(source))
        return stream

    def _make(self, worker: Worker, model: str) -> WorkerStream:
        self._index.join(worker, model)
        policy = self._environment.policy
        trust = Trust(self._classes.setdefault(model, ClassesInUse()))
        applier = Applier(
            self._index,
            worker,
            self._scheme_of(model),
            trust,
            Orphans(self._environment.budget, count_copies=policy.count_copies),
            count_copies=policy.count_copies,
            settings=self._settings_of(model),
        )
        stream = WorkerStream(worker, model, applier, trust, self._environment)
        self._streams[worker] = stream
        self._pods.setdefault(worker.pod, {})[worker.rank] = stream
        self._models[model] += 1
        self.log.info("worker_joined", pod=worker.pod, rank=worker.rank, model=model)
        return stream

    def forget(self, stream: WorkerStream) -> None:
        """Remove a stream, and everything that its worker holds."""
        self.remove(stream)
        self._index.leave(stream.worker)
        self._ownership.on_left(stream.worker)

    def forget_pod(self, pod: str) -> bool:
        """Forget the streams of a pod's ranks; False if there were none."""
        streams = list(self.of_pod(pod))
        for stream in streams:
            self.forget(stream)
        return bool(streams)

    def remove(self, stream: WorkerStream) -> None:
        """Remove a stream; the worker's blocks stay in the index."""
        self._replays.cancel(stream)
        for connection in [*stream.rivals, stream.connection]:
            if connection is not None:
                self.connections.remove_user(connection, stream)
        stream.close()
        self._classes[stream.model].unsubscribe(stream.trust)
        del self._streams[stream.worker]
        self._peers.pop(stream.worker, None)
        ranks = self._pods[stream.worker.pod]
        del ranks[stream.worker.rank]
        if not ranks:
            del self._pods[stream.worker.pod]
        self._models[stream.model] -= 1
        if not self._models[stream.model]:
            del self._models[stream.model], self._classes[stream.model]

    def forget_expected(self, source: Source) -> None:
        """Forget what was expected behind `source`: its pod turned out to have another rank."""
        if source.pod and source.rank is None:
            for stream in list(self.connections.of(source).streams):
                if not stream.live_frames and not stream.sequencer.has_started:
                    self.forget(stream)

    def forget_source(self, source: Source) -> None:
        """Forget a source whose connections are closed, and all streams that it feeds."""
        for stream in list(self._streams.values()):
            if stream.source is source:
                self.forget(stream)
        self.connections.remove_source(source)

    def set_ready(self, source: Source, is_ready: bool | None) -> None:
        """The pod behind a source takes requests, or takes none; None: nobody discovers it."""
        connections = self.connections.of(source)
        if connections.is_ready is not is_ready:
            connections.is_ready = is_ready
            for stream in connections.streams:
                stream.forget_status()
                self._on_trust_changed(stream)
            self._on_change()

    # Connections

    def use_connection(self, stream: WorkerStream, connection: int) -> None:
        """Let `stream` speak through `connection`, even a lost one: its last frames come later."""
        if stream.connection is not None and stream.connection != connection:
            self.connections.remove_user(stream.connection, stream)
        self.connections.add_user(connection, stream)
        if stream.source is not None and (peer := self._peer_of(stream.source, connection)):
            self._peers[stream.worker] = peer
            stream.look_for_replay_socket()
        is_lost = self.connections.is_lost(connection)
        stream.on_connection_changed(connection, is_lost=is_lost)

    def reject_rival(self, stream: WorkerStream, connection: int) -> bool:
        """Count a frame of a rival: its worker speaks through another live connection.

        The rival may be gone by now: its last frames come after the loss of its connection.

        Returns whether it is one; then it is not to be applied.
        """
        is_rival = connection != stream.connection and stream.is_connected
        if is_rival:
            self.connections.add_user(connection, stream)
            stream.on_rival(connection, is_lost=self.connections.is_lost(connection))
        return is_rival

    def _on_answer_without_connection(self, stream: WorkerStream) -> None:
        if stream.source is not None and not stream.source.bind:
            self._reconnect(stream.source)

    # Changes

    def _on_trust_changed(self, stream: WorkerStream) -> None:
        for watcher in self.trust_watchers:
            watcher(stream.worker)

    def mark_evicted(self) -> None:
        """Downgrade the workers that have lost blocks to the memory limit."""
        for worker, tier in self._index.evicted():
            stream = self._streams.get(worker)
            if stream is not None:
                stream.on_evicted(tier)
            else:
                self._ownership.on_evicted(worker)

    def on_stream_changed(self) -> None:
        """Blocks or the trust of a stream may have changed."""
        self.mark_evicted()
        self._on_change()
