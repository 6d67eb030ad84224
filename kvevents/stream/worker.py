"""One worker's stream of events: frames in order, applied, and how much to trust the outcome."""

from __future__ import annotations

import time
import zlib
from typing import TYPE_CHECKING, Any

import structlog

from indexer import TrustState, TrustStatus
from kvevents.sequencing import (
    Apply,
    FrameSequencer,
    Incarnation,
    Rebuild,
    ReceivedFrame,
    ReplayReason,
    ReplayRequest,
    Restart,
)
from kvevents.source import UnknownPublisherError
from kvevents.stream.report import StreamReport
from kvevents.stream.trust import EVERYWHERE

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from indexer import Worker
    from kvevents.budget import Budget
    from kvevents.sequencing import Action
    from kvevents.source import Source
    from kvevents.stream.applier import Applier
    from kvevents.stream.link import SourceConnections
    from kvevents.transport import Frame
    from kvevents.wire import Batch

_DECODED = 4  # decoded events take about this many times the bytes of their payload
_FLAWS = ("truncated_payload", "broken_event")
_LONGEST_REBUILD_WAIT = 64  # polls
_ANXIOUS_POLL_SECONDS = 1.0  # while nobody vouches for the worker

_log = structlog.get_logger("kvatlas.kvevents")


def fingerprint_of(payload: bytes) -> int:
    """The same for the same payload; others have the engine's time or their hashes different."""
    return zlib.crc32(payload[-64:], zlib.crc32(payload[:128])) | len(payload) << 32


def flaw_of(batch: Batch | None) -> str:
    """Why a batch's events are not all there, or ""."""
    if batch is None:
        return "undecodable_frame"
    return next((flaw for flaw in _FLAWS if flaw in batch.skipped), "")


class WorkerStream:
    """What is known of the event stream of one worker.

    batches: live frames so far. last_event, last_answer: when the newest live frame and the newest
    answer to a replay came (`time.monotonic`), None before the first. connection: the one it speaks
    through, of `link`; None before the first. foreign_replay: what was wrong if the replay socket
    answered with frames of another worker, else empty. rivals: other live connections that speak in
    the worker's name. stale_after: seconds of silence, 0 for never. up: all live connections there
    are. answered: told when the replay socket answers while no connection is up.
    """

    def __init__(
        self,
        worker: Worker,
        model: str,
        applier: Applier,
        budget: Budget,
        ask: Callable[[WorkerStream, ReplayRequest], None],
        applied: Callable[[], None],
        *,
        forget_on_doubt: bool,
        stale_after: float,
        up: AbstractSet[int] = frozenset(),
        answered: Callable[[WorkerStream], None] = lambda _: None,
    ) -> None:
        self.worker = worker
        self.model = model
        self.applier = applier
        self.trust = applier.trust
        self.sequencer = FrameSequencer(self.trust, budget, self._perform, can_replay=False)
        self.source: Source | None = None
        self.source_connections: SourceConnections | None = None
        self.connection: int | None = None
        self.live_frames = 0
        self.last_event: float | None = None
        self.last_answer: float | None = None
        self.foreign_replay = ""
        self.rivals: set[int] = set()
        self._is_lost = False
        self._live_connections = up
        self._answered = answered
        self._restored_sign: float | None = None
        self._ask = ask
        self._applied = applied
        self._forget_on_doubt = forget_on_doubt
        self._stale_after = stale_after
        self._reported = self.trust.state
        self._next_poll = 0.0
        self._next_rebuild = 0.0
        self._rebuild_wait = 1

    @property
    def replay_endpoint(self) -> str | None:
        """Where to ask for a replay, or None."""
        return None if self.source is None else self.source.replay_endpoint(self.worker)

    def is_own(self, topic: bytes, batch: Batch | None) -> bool:
        """Whether a replayed frame is this worker's, as far as it says whose it is."""
        source = self.source
        if source is None:
            return False
        if topic:
            try:
                if source.publisher_of(topic).pod != self.worker.pod:
                    return False
            except UnknownPublisherError:
                return False
        said = None if batch is None or source.rank is not None else batch.rank
        return said is None or said == self.worker.rank

    def close(self) -> None:
        """The worker is forgotten: nothing waits for it any more."""
        self.sequencer.leave()
        self.applier.orphans.clear()
        if self.source_connections is not None:
            self.source_connections.streams.discard(self)

    # Frames

    def on_live_frame(self, frame: Frame, batch: Batch | None) -> None:
        """A live frame has come; `batch` is None if its payload could not be decoded."""
        self.live_frames += 1
        self.last_event = time.monotonic()
        continuity = self.sequencer
        life = continuity.life
        if (
            frame.sequence == life.last + 1
            and continuity.calm
            and batch is not None
            and not batch.skipped
            and frame.epoch == life.epoch
        ):
            life.accept(frame.sequence, fingerprint_of(frame.payload), batch.timestamp)
            self._apply(batch)
            if self.trust.state is not self._reported:
                self._on_trust_changed()
        else:
            continuity.live(_arrival(frame, batch))
            self._settle()

    def on_heartbeat(self, frame: Frame) -> None:
        """The engine is alive, and says how far it has got."""
        self.last_event = time.monotonic()
        if not self.sequencer.heartbeat(frame.sequence, frame.epoch):
            self._next_poll = 0.0  # there may be one more frame than we know of
        self._settle()

    def on_replayed_frame(self, ask: ReplayRequest, frame: Frame, batch: Batch | None) -> None:
        """A frame has come in answer to `ask`."""
        self.foreign_replay = ""
        self.last_answer = time.monotonic()
        self.sequencer.replayed(ask, _arrival(frame, batch))
        self._settle()

    def on_replay_finished(self, ask: ReplayRequest, *, complete: bool) -> None:
        """The answer to `ask` is over, by the engine's own word or not."""
        was_unanswered = self.sequencer.unanswered
        if complete:
            self.last_answer = time.monotonic()
            if not self.is_connected:
                self._answered(self)
        self.sequencer.ended(ask, complete=complete)
        if self.sequencer.unanswered:
            self._next_poll = min(self._next_poll, time.monotonic() + _ANXIOUS_POLL_SECONDS)
        if self.sequencer.unanswered != was_unanswered:
            self._applied()
        self._settle()

    @property
    def is_connected(self) -> bool:
        """Whether the connection it speaks through is not known to be lost."""
        return self.connection is not None and not self._is_lost

    def on_connection_changed(self, connection: int, *, is_lost: bool = False) -> None:
        """Through another connection than before, there may be another publisher.

        is_lost: whether that one is gone by now, and this is what was left of it.
        """
        if connection == self.connection:
            return
        if self.connection is not None:
            doubt = "reconnected"
        else:  # only a stream that was restored has begun without a connection
            doubt = "restored" if self.sequencer.begun else ""
        self.connection = connection
        self._is_lost = is_lost
        self.rivals.discard(connection)
        self.sequencer.connected(doubt)
        self._applied()
        self._settle()

    def on_rival(self, connection: int) -> None:
        """Another live connection has spoken in the worker's name."""
        self.sequencer.counts.rivals += 1
        if connection not in self.rivals:
            self.rivals.add(connection)
            self._applied()

    def on_disconnected(self, connection: int) -> None:
        """A connection is gone: the worker's, or that of somebody who spoke in its name."""
        if connection in self.rivals or connection == self.connection:
            self._is_lost |= connection == self.connection
            self.rivals.discard(connection)
            self._next_poll = 0.0
            self._applied()

    def resync(self) -> None:
        """Learn anew what there is to learn."""
        self.sequencer.resync()
        self._settle()

    def _perform(self, step: Action) -> None:
        match step:
            case Apply():
                self._apply(step.arrival.batch)
            case Restart():
                _log.info("worker_restarted", pod=self.worker.pod, rank=self.worker.rank)
                self.applier.restart()
            case Rebuild():
                self.applier.restart()
                self.applier.forget(list(EVERYWHERE))
            case ReplayRequest():
                self._ask(self, step)

    def _settle(self) -> None:
        """Act on what has become of the worker's trust."""
        if self.trust.state is not self._reported:
            self._on_trust_changed()

    def _apply(self, batch: Batch | None) -> None:
        applier = self.applier
        tally = applier.counts
        if batch is None:
            tally.skipped["undecodable_frame"] += 1
            return
        self._try(applier.begin_batch, batch.events)
        for event in batch.events:
            self._try(applier.apply, event)
        self._try(applier.finish_batch)
        for reason, count in batch.skipped.items():  # where in the batch they were is not known
            tally.skipped[reason] += count
            if reason not in _FLAWS:
                self.trust.downgrade(TrustState.DEGRADED, reason, mendable=False)
        self._applied()

    def _try(self, do: Callable[..., None], *arguments: Any) -> None:
        """One bad event must not cost its neighbours."""
        try:
            do(*arguments)
        except Exception:  # noqa: BLE001 - counted, and told of with every answer
            self.applier.counts.skipped["internal_error"] += 1
            self.trust.downgrade(TrustState.DEGRADED, "internal_error", mendable=False)
            _log.exception("event_not_applied", pod=self.worker.pod, rank=self.worker.rank)

    def _on_trust_changed(self) -> None:
        trust = self.trust
        doubted = trust.degraded_classes
        if self._forget_on_doubt and doubted and not trust.recovery_reason:
            self.applier.forget(doubted, hashes=self.sequencer.publisher_in_doubt)
            self.sequencer.publisher_in_doubt = False
            trust.on_degraded_dropped()
        if trust.state is TrustState.EXACT:
            self._rebuild_wait = 1
        elif trust.reason == "contradiction":
            self._next_poll = 0.0  # do not wait to see about it
        if trust.state is not self._reported:
            _log.info(
                "pod_state",
                pod=self.worker.pod,
                rank=self.worker.rank,
                state=trust.state.value,
                was=self._reported.value,
                reason=trust.reason,
            )
            self._reported = trust.state
        self._applied()

    def report(self, now: float) -> StreamReport:
        """What an operator is told, at `now` (`time.monotonic`)."""
        applier, counts = self.applier, self.sequencer.counts
        return StreamReport(
            last_event_age=None if self.last_event is None else now - self.last_event,
            silent=self.silent_for(now),
            counts={name: getattr(counts, name) for name in counts.__slots__},  # asdict is slow
            events=dict(applier.counts.events),
            skipped=dict(applier.counts.skipped),
            engine_block_size=applier.groups.engine_block_size,
            rivals=len(self.rivals),
            orphan_blocks=applier.orphans.blocks,
            replay_endpoint=self.replay_endpoint,
            foreign_replay=self.foreign_replay,
            live_frames=self.live_frames,
            resolved=applier.resolved,
        )

    # Snapshots

    def dump(self) -> dict[str, Any] | None:
        """What `restore` takes; None if there is nothing that could be gone on with."""
        if self.source is None or not self.sequencer.begun:
            return None
        return {
            "worker": tuple(self.worker),
            "model": self.model,
            "endpoint": self.source.endpoint,
            "life": self.sequencer.life.dump(),
            "doubts": self.trust.dump(),
            "orphans": bool(self.applier.orphans),
            "tiers": list(self.applier.named_tiers),
            "gpu_stores": self.trust.classes.gpu_stores,
        }

    def restore(self, dumped: dict[str, Any], connection: int | None = None) -> None:
        """Go on where the stream that was dumped had got to, as soon as that is known to be so.

        connection: the one it speaks through, if it is up already.
        """
        self._restored_sign = time.monotonic()
        self.connection, self._is_lost = connection, False
        self.applier.restore_tiers(dumped["tiers"])
        classes = self.trust.classes
        classes.count_gpu_stores(max(0, dumped["gpu_stores"] - classes.gpu_stores))
        self.trust.load(dumped["doubts"])
        if dumped["orphans"]:
            self.trust.downgrade(TrustState.PARTIAL, "orphans_not_saved")
        self.sequencer.restore(Incarnation.load(dumped["life"]))
        self._settle()

    # Time

    def tick(self, now: float, poll_seconds: float) -> None:
        """Ask whether all is well, if it is time to."""
        if now < self._next_poll or not self.sequencer.can_replay:
            return
        anxious = self.sequencer.unanswered or not self.is_connected
        self._next_poll = now + (
            min(poll_seconds, _ANXIOUS_POLL_SECONDS) if anxious else poll_seconds
        )
        before = self.sequencer.asked
        self.sequencer.poll(rebuild=now >= self._next_rebuild)
        asked = self.sequencer.asked
        if asked is not None and asked is not before and asked.purpose is ReplayReason.REBUILD:
            self._next_rebuild = now + poll_seconds * self._rebuild_wait
            self._rebuild_wait = min(2 * self._rebuild_wait, _LONGEST_REBUILD_WAIT)
        self._settle()

    def silent_for(self, now: float) -> float | None:
        """Seconds since the last sign of life: a frame, an answer, or a connection that is up."""
        if self.connection and self.connection in self._live_connections:
            return 0.0
        signs = (self.last_event, self.last_answer, self._restored_sign)
        newest = max((sign for sign in signs if sign is not None), default=None)
        return None if newest is None else now - newest

    def trust_status(self, now: float) -> TrustStatus:
        """How much to trust what is claimed of the worker, at `now` (`time.monotonic`)."""
        silent = self.silent_for(now)
        last = self.sequencer.life.last
        state, reason = self._state(silent)
        return TrustStatus(state, reason, silent, last if last >= 0 else None)

    def _state(self, silent: float | None) -> tuple[TrustState, str]:
        """See the tables in `kvevents.stream.trust`."""
        trust = self.trust
        if self.rivals:
            return TrustState.DEGRADED, "two_engines_one_name"
        if trust.state is TrustState.UNKNOWN or not self.sequencer.begun:
            return trust.state, trust.reason
        if not self.is_connected:
            return TrustState.STALE, "disconnected"
        if self.sequencer.unanswered and trust.state is not TrustState.RECOVERING:
            return TrustState.STALE, "replay_unanswered"
        if self._stale_after and silent is not None and silent > self._stale_after:
            return TrustState.STALE, "silent"
        return trust.state, trust.reason


def _arrival(frame: Frame, batch: Batch | None) -> ReceivedFrame:
    size = _DECODED * len(frame.payload)
    fingerprint = fingerprint_of(frame.payload)
    return ReceivedFrame(frame.sequence, fingerprint, batch, size, flaw_of(batch), frame.epoch)
