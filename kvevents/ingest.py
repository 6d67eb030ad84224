"""Frames of all sources -> the right worker's stream, counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from indexer import Worker
from kvevents.applier import Applier
from kvevents.budget import Budget
from kvevents.events import PayloadError, decode_batch
from kvevents.frame import FrameError, parse_frame
from kvevents.link import Link
from kvevents.orphans import Orphans
from kvevents.source import UnknownSpeakerError
from kvevents.stream import WorkerStream
from kvevents.trust import ClassesInUse, State, Trust, class_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from indexer import Index, KeyScheme
    from kvevents.frame import Frame
    from kvevents.source import Source
    from kvevents.steps import Ask

_MOST_ROUTES = 65_536

_log = structlog.get_logger("kvatlas.kvevents")


@dataclass(frozen=True)
class IngestPolicy:
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

    def ask(self, stream: WorkerStream, ask: Ask) -> None:
        """Ask for `stream`, instead of what it had asked for before."""
        ...

    def leave(self, stream: WorkerStream) -> None:
        """The stream is not interested any more."""
        ...


class Ingest:
    """Applies frames to the index. Synchronous, one thread; never raises for what a frame says.

    replays: told which stream wants what replayed. skipped: frames that belong to no worker, by
    reason; those of a worker are in its stream's `applier.tally`. waiting: memory in use for what
    has to wait.
    """

    def __init__(
        self,
        index: Index,
        scheme_of: Callable[[str], KeyScheme],
        replays: AsksForReplays,
        policy: IngestPolicy | None = None,
    ) -> None:
        self._index = index
        self._scheme_of = scheme_of
        self._replays = replays
        self.policy = policy or IngestPolicy()
        self.waiting = Budget(self.policy.waiting_bytes)
        self._streams: dict[Worker, WorkerStream] = {}
        self._links: dict[Source, Link] = {}
        self._classes: dict[str, ClassesInUse] = {}
        self._routes: dict[tuple[Source, bytes, int | None], WorkerStream] = {}
        self._complained: set[tuple[str, str]] = set()
        self.skipped: Counter[str] = Counter()
        self.frames = 0
        self.departed = 0

    @property
    def streams(self) -> Mapping[Worker, WorkerStream]:
        """The stream of every worker heard of or expected."""
        return self._streams

    # Sources

    def expect(self, source: Source) -> None:
        """Register a source, and its pod if the configuration names it, before it has spoken."""
        self._link(source)
        if source.pod and source.model:
            self._stream(source, Worker(source.pod, source.rank or 0), source.model)

    def _link(self, source: Source) -> Link:
        link = self._links.get(source)
        if link is None:
            link = self._links[source] = Link()
        return link

    def connected(self, source: Source, connection: int) -> None:
        """A connection of the source was made: the only one there is, unless it is bound."""
        self.expect(source)
        link = self._link(source)
        link.up.add(connection)
        if not source.bind:
            for stream in list(link.streams):
                stream.speaks_through(connection)

    def disconnected(self, source: Source, connection: int) -> None:
        """A connection of the source was lost."""
        self._link(source).up.discard(connection)

    # Frames

    def take(self, source: Source, parts: list[bytes], connection: int = 0) -> None:
        """Apply one message that came from `source` through `connection`, or count why not."""
        self.frames += 1
        try:
            self._take(source, parse_frame(parts), connection)
        except (FrameError, UnknownSpeakerError) as error:
            self._skip(error.reason, source, str(error))
        except Exception:  # noqa: BLE001 - one bad frame must not stop the others
            self.skipped["internal_error"] += 1
            _log.exception("frame_not_applied", endpoint=source.endpoint)

    def _take(self, source: Source, frame: Frame, connection: int) -> None:
        try:
            batch = decode_batch(frame.payload)
        except PayloadError as error:
            batch = None
            self._skip(error.reason, source, str(error))
        rank = None if batch is None else batch.rank
        stream = self._routes.get((source, frame.topic, rank))
        if stream is None:
            stream = self._route(source, frame.topic, rank)
            if rank is not None and len(self._routes) < _MOST_ROUTES:
                self._routes[source, frame.topic, rank] = stream
        if stream.connection != connection:
            stream.speaks_through(connection)
        stream.take(frame.sequence, frame.payload, batch)

    def _notice_evictions(self) -> None:
        for worker, tier in self._index.evicted():
            stream = self._streams.get(worker)
            if stream is not None:
                stream.trust.doubt(State.PARTIAL, "evicted", [class_of(tier)], mendable=False)

    def _route(self, source: Source, topic: bytes, said_rank: int | None) -> WorkerStream:
        speaker = source.speaker(topic)
        rank = source.rank if source.rank is not None else said_rank
        if rank is None:  # not said, or the payload broke off before it
            ranks = [worker.rank for worker in self._streams if worker.pod == speaker.pod]
            if len(ranks) > 1:
                raise UnknownSpeakerError(
                    "unknown_rank", f"a frame of pod {speaker.pod} does not say of which rank it is"
                )
            rank = ranks[0] if ranks else 0
        self._routes.clear()  # a worker may have changed its model: let no old stream linger
        worker = Worker(speaker.pod, rank)
        if worker not in self._streams:
            self._drop_expectation(source)
        return self._stream(source, worker, speaker.model)

    def _drop_expectation(self, source: Source) -> None:
        """The pod behind `source` has a rank other than the one that was expected."""
        if source.pod and source.rank is None:
            for stream in list(self._link(source).streams):
                if not stream.batches and not stream.continuity.begun:
                    self._leave(stream)

    def _stream(self, source: Source, worker: Worker, model: str) -> WorkerStream:
        stream = self._streams.get(worker)
        if stream is not None and stream.model != model:
            self._leave(stream)
            stream = None
        if stream is None:
            stream = self._join(worker, model)
            _log.info("worker_joined", pod=worker.pod, rank=worker.rank, model=model)
        self._attach(stream, source)
        return stream

    def _attach(self, stream: WorkerStream, source: Source) -> None:
        """`stream` speaks through `source`."""
        stream.source = source
        stream.applier.extra_strings = source.extra_strings
        stream.continuity.can_replay = stream.replay_endpoint is not None
        link = self._link(source)
        if stream.link is not link:
            if stream.link is not None:
                stream.link.streams.discard(stream)
            stream.link = link
            link.streams.add(stream)

    def _join(self, worker: Worker, model: str) -> WorkerStream:
        self._index.join(worker, model)
        policy = self.policy
        trust = Trust(self._classes.setdefault(model, ClassesInUse()))
        orphans = Orphans(self.waiting, count_copies=policy.count_copies)
        applier = Applier(
            self._index,
            worker,
            self._scheme_of(model),
            trust,
            orphans,
            count_copies=policy.count_copies,
        )
        stream = self._streams[worker] = WorkerStream(
            worker,
            model,
            applier,
            self.waiting,
            self._replays.ask,
            self._notice_evictions,
            forget_on_doubt=policy.forget_on_doubt,
            stale_after=policy.stale_after,
        )
        return stream

    def _skip(self, reason: str, source: Source, detail: str) -> None:
        self.skipped[reason] += 1
        if (reason, source.endpoint) not in self._complained:
            self._complained.add((reason, source.endpoint))
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
                self._stream(source, worker, model).restore(of_stream)
                restored.add(worker)
        for worker in [blocks.worker for blocks in self._index.workers()]:
            if worker not in restored:
                self._index.leave(worker)
                if worker in self._streams:
                    self._index.join(worker, self._streams[worker].model)

    def _source_of(self, endpoint: str, pod: str, model: str) -> Source | None:
        for source in self._links:
            if source.endpoint == endpoint and source.may_be(pod, model):
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
                self._leave(stream)
            else:
                stream.tick(now, self.policy.poll_seconds)

    def forget(self, pod: str) -> bool:
        """The pod is gone from the scores at once; False if it was not known.

        If it speaks again it is a pod that was joined late.
        """
        leaving = [stream for worker, stream in self._streams.items() if worker.pod == pod]
        for stream in leaving:
            self._leave(stream)
        return bool(leaving)

    def resync(self, pod: str) -> list[tuple[Worker, bool]]:
        """Learn anew what the pod holds; says of each rank whether a replay was asked for."""
        found = [stream for worker, stream in self._streams.items() if worker.pod == pod]
        for stream in found:
            stream.resync()
        return [(stream.worker, stream.continuity.can_replay) for stream in found]

    def _leave(self, stream: WorkerStream) -> None:
        self._replays.leave(stream)
        stream.leave()
        self._classes[stream.model].leave(stream.trust)
        self._index.leave(stream.worker)
        del self._streams[stream.worker]
        self._routes.clear()
