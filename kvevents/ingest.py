"""Frames of all sources -> the right worker's events, in order, counted."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from indexer import Worker
from kvevents.applier import Applier
from kvevents.events import PayloadError, decode_batch
from kvevents.frame import FrameError, parse_frame
from kvevents.source import UnknownSpeakerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from indexer import Index, KeyScheme
    from kvevents.frame import Frame
    from kvevents.source import Source

_MOST_ROUTES = 65_536

_log = structlog.get_logger("kvatlas.kvevents")


@dataclass(slots=True)
class WorkerStream:
    """What is known of the event stream of one worker.

    last_sequence: of the newest frame, -1 before the first. missed: frames that sequence numbers
    say were published and did not arrive. backwards: frames whose number was not beyond the last
    one's. last_event: when the newest frame arrived (`time.monotonic`), None before the first.
    """

    model: str
    applier: Applier
    batches: int = 0
    last_sequence: int = -1
    missed: int = 0
    backwards: int = 0
    last_event: float | None = None

    def observe(self, sequence: int) -> None:
        """A frame has arrived with this sequence number."""
        if self.batches:
            if sequence > self.last_sequence + 1:
                self.missed += sequence - self.last_sequence - 1
            elif sequence <= self.last_sequence:
                self.backwards += 1
        self.batches += 1
        self.last_sequence = sequence
        self.last_event = time.monotonic()


class Ingest:
    """Applies frames to the index. Synchronous, one thread; never raises for what a frame says.

    skipped: frames and events that belong to no worker, by reason. Those of a worker are in its
    stream's `applier.tally`.
    """

    def __init__(
        self, index: Index, scheme_of: Callable[[str], KeyScheme], count_copies: bool = True
    ) -> None:
        self._index = index
        self._scheme_of = scheme_of
        self._count_copies = count_copies
        self._streams: dict[Worker, WorkerStream] = {}
        self._routes: dict[tuple[Source, bytes, int | None], WorkerStream] = {}
        self._complained: set[tuple[str, str]] = set()
        self.skipped: Counter[str] = Counter()
        self.frames = 0

    @property
    def streams(self) -> Mapping[Worker, WorkerStream]:
        """The stream of every worker heard of or expected."""
        return self._streams

    def expect(self, source: Source) -> None:
        """Register the pod of a source whose configuration names it, before it has spoken."""
        if source.pod and source.model:
            worker = Worker(source.pod, source.rank or 0)
            self._stream(source, worker, source.model)

    def take(self, source: Source, parts: list[bytes]) -> None:
        """Apply one message from `source`, or count why not."""
        self.frames += 1
        try:
            self._apply(source, parse_frame(parts))
        except (FrameError, UnknownSpeakerError, PayloadError) as error:
            self._skip(error.reason, source, str(error))
        except Exception:  # noqa: BLE001 - one bad frame must not stop the others
            self.skipped["internal_error"] += 1
            _log.exception("frame_not_applied", endpoint=source.endpoint)

    def _apply(self, source: Source, frame: Frame) -> None:
        batch = decode_batch(frame.payload)
        route = (source, frame.topic, batch.rank)
        stream = self._routes.get(route)
        if stream is None:
            stream = self._route(source, frame.topic, batch.rank)
            if len(self._routes) < _MOST_ROUTES:
                self._routes[route] = stream
        stream.observe(frame.sequence)
        if batch.skipped:
            stream.applier.tally.skipped.update(batch.skipped)
        for event in batch.events:
            try:
                stream.applier.apply(event)
            except Exception:  # noqa: BLE001 - one bad event must not cost its neighbours
                stream.applier.tally.skipped["internal_error"] += 1
                _log.exception("event_not_applied", endpoint=source.endpoint)

    def _route(self, source: Source, topic: bytes, said_rank: int | None) -> WorkerStream:
        speaker = source.speaker(topic)
        rank = source.rank if source.rank is not None else said_rank
        if rank is None:  # not said, or the payload broke off before it: the pod's only one, or 0
            ranks = [worker.rank for worker in self._streams if worker.pod == speaker.pod]
            rank = ranks[0] if len(ranks) == 1 else 0
        self._routes.clear()  # a worker may have changed its model: let no old stream linger
        return self._stream(source, Worker(speaker.pod, rank), speaker.model)

    def _stream(self, source: Source, worker: Worker, model: str) -> WorkerStream:
        stream = self._streams.get(worker)
        if stream is None or stream.model != model:
            self._index.join(worker, model)
            applier = Applier(
                self._index,
                worker,
                self._scheme_of(model),
                source.extra_strings,
                self._count_copies,
            )
            stream = self._streams[worker] = WorkerStream(model, applier)
            _log.info("worker_joined", pod=worker.pod, rank=worker.rank, model=model)
        return stream

    def _skip(self, reason: str, source: Source, detail: str) -> None:
        self.skipped[reason] += 1
        if (reason, source.endpoint) not in self._complained:
            self._complained.add((reason, source.endpoint))
            _log.warning("frame_skipped", reason=reason, endpoint=source.endpoint, detail=detail)
