"""One worker's stream of events: frames in order, applied, and how much to trust the outcome."""

from __future__ import annotations

import time
import zlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from kvevents.continuity import Continuity
from kvevents.life import Life
from kvevents.report import Report
from kvevents.source import UnknownSpeakerError
from kvevents.steps import Apply, Arrival, Ask, Purpose, Rebuild, Restart
from kvevents.trust import EVERYWHERE, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from indexer import Worker
    from kvevents.applier import Applier
    from kvevents.budget import Budget
    from kvevents.events import Batch
    from kvevents.frame import Frame
    from kvevents.link import Link
    from kvevents.source import Source
    from kvevents.steps import Step

_DECODED = 4  # decoded events take about this many times the bytes of their payload
_FLAWS = ("truncated_payload", "broken_event")
_LONGEST_REBUILD_WAIT = 64  # polls
_ANXIOUS_POLL_SECONDS = 1.0  # while nobody vouches for the worker

_log = structlog.get_logger("kvatlas.kvevents")


class Standing(NamedTuple):
    """How much to trust what is claimed of a worker.

    silent: seconds since its last sign of life, None if there never was one. as_of: number of the
    last frame applied, None before the first.
    """

    state: State
    reason: str
    silent: float | None
    as_of: int | None


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
        ask: Callable[[WorkerStream, Ask], None],
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
        self.continuity = Continuity(self.trust, budget, self._perform, can_replay=False)
        self.source: Source | None = None
        self.link: Link | None = None
        self.connection: int | None = None
        self.batches = 0
        self.last_event: float | None = None
        self.last_answer: float | None = None
        self.foreign_replay = ""
        self.rivals: set[int] = set()
        self._is_lost = False
        self._up = up
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
                if source.speaker(topic).pod != self.worker.pod:
                    return False
            except UnknownSpeakerError:
                return False
        said = None if batch is None or source.rank is not None else batch.rank
        return said is None or said == self.worker.rank

    def leave(self) -> None:
        """The worker is forgotten: nothing waits for it any more."""
        self.continuity.leave()
        self.applier.orphans.clear()
        if self.link is not None:
            self.link.streams.discard(self)

    # Frames

    def take(self, frame: Frame, batch: Batch | None) -> None:
        """A live frame has come; `batch` is None if its payload could not be decoded."""
        self.batches += 1
        self.last_event = time.monotonic()
        continuity = self.continuity
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
                self._changed()
        else:
            continuity.live(_arrival(frame, batch))
            self._settle()

    def heartbeat(self, frame: Frame) -> None:
        """The engine is alive, and says how far it has got."""
        self.last_event = time.monotonic()
        if not self.continuity.heartbeat(frame.sequence, frame.epoch):
            self._next_poll = 0.0  # there may be one more frame than we know of
        self._settle()

    def replayed(self, ask: Ask, frame: Frame, batch: Batch | None) -> None:
        """A frame has come in answer to `ask`."""
        self.foreign_replay = ""
        self.last_answer = time.monotonic()
        self.continuity.replayed(ask, _arrival(frame, batch))
        self._settle()

    def ended(self, ask: Ask, *, complete: bool) -> None:
        """The answer to `ask` is over, by the engine's own word or not."""
        was_unanswered = self.continuity.unanswered
        if complete:
            self.last_answer = time.monotonic()
            if not self.is_connected:
                self._answered(self)
        self.continuity.ended(ask, complete=complete)
        if self.continuity.unanswered:
            self._next_poll = min(self._next_poll, time.monotonic() + _ANXIOUS_POLL_SECONDS)
        if self.continuity.unanswered != was_unanswered:
            self._applied()
        self._settle()

    @property
    def is_connected(self) -> bool:
        """Whether the connection it speaks through is not known to be lost."""
        return self.connection is not None and not self._is_lost

    def speaks_through(self, connection: int, *, is_lost: bool = False) -> None:
        """Through another connection than before, there may be another publisher.

        is_lost: whether that one is gone by now, and this is what was left of it.
        """
        if connection == self.connection:
            return
        if self.connection is not None:
            doubt = "reconnected"
        else:  # only a stream that was restored has begun without a connection
            doubt = "restored" if self.continuity.begun else ""
        self.connection = connection
        self._is_lost = is_lost
        self.rivals.discard(connection)
        self.continuity.connected(doubt)
        self._applied()
        self._settle()

    def contradict(self, connection: int) -> None:
        """Another live connection has spoken in the worker's name."""
        self.continuity.counts.rivals += 1
        if connection not in self.rivals:
            self.rivals.add(connection)
            self._applied()

    def disconnected(self, connection: int) -> None:
        """A connection is gone: the worker's, or that of somebody who spoke in its name."""
        if connection in self.rivals or connection == self.connection:
            self._is_lost |= connection == self.connection
            self.rivals.discard(connection)
            self._next_poll = 0.0
            self._applied()

    def resync(self) -> None:
        """Learn anew what there is to learn."""
        self.continuity.resync()
        self._settle()

    def _perform(self, step: Step) -> None:
        match step:
            case Apply():
                self._apply(step.arrival.batch)
            case Restart():
                _log.info("worker_restarted", pod=self.worker.pod, rank=self.worker.rank)
                self.applier.restart()
            case Rebuild():
                self.applier.restart()
                self.applier.forget(list(EVERYWHERE))
            case Ask():
                self._ask(self, step)

    def _settle(self) -> None:
        """Act on what has become of the worker's trust."""
        if self.trust.state is not self._reported:
            self._changed()

    def _apply(self, batch: Batch | None) -> None:
        applier = self.applier
        tally = applier.tally
        if batch is None:
            tally.skipped["undecodable_frame"] += 1
            return
        self._try(applier.begin, batch.events)
        for event in batch.events:
            self._try(applier.apply, event)
        self._try(applier.finish)
        for reason, count in batch.skipped.items():  # where in the batch they were is not known
            tally.skipped[reason] += count
            if reason not in _FLAWS:
                self.trust.doubt(State.DEGRADED, reason, mendable=False)
        self._applied()

    def _try(self, do: Callable[..., None], *arguments: Any) -> None:
        """One bad event must not cost its neighbours."""
        try:
            do(*arguments)
        except Exception:  # noqa: BLE001 - counted, and told of with every answer
            self.applier.tally.skipped["internal_error"] += 1
            self.trust.doubt(State.DEGRADED, "internal_error", mendable=False)
            _log.exception("event_not_applied", pod=self.worker.pod, rank=self.worker.rank)

    def _changed(self) -> None:
        trust = self.trust
        doubted = trust.degraded_classes
        if self._forget_on_doubt and doubted and not trust.waits_for:
            self.applier.forget(doubted, hashes=self.continuity.publisher_in_doubt)
            self.continuity.publisher_in_doubt = False
            trust.forgotten()
        if trust.state is State.EXACT:
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

    def report(self, now: float) -> Report:
        """What an operator is told, at `now` (`time.monotonic`)."""
        applier = self.applier
        return Report(
            last_event_age=None if self.last_event is None else now - self.last_event,
            silent=self.silent_for(now),
            counts=asdict(self.continuity.counts),
            events=dict(applier.tally.events),
            skipped=dict(applier.tally.skipped),
            engine_block_size=applier.groups.engine_block_size,
            rivals=len(self.rivals),
            orphan_blocks=applier.orphans.blocks,
            replay_endpoint=self.replay_endpoint,
            foreign_replay=self.foreign_replay,
            live_frames=self.batches,
            resolved=applier.resolved,
        )

    # Snapshots

    def dump(self) -> dict[str, Any] | None:
        """What `restore` takes; None if there is nothing that could be gone on with."""
        if self.source is None or not self.continuity.begun:
            return None
        return {
            "worker": tuple(self.worker),
            "model": self.model,
            "endpoint": self.source.endpoint,
            "life": self.continuity.life.dump(),
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
        self.applier.use(dumped["tiers"])
        classes = self.trust.classes
        classes.stored_on_gpu(max(0, dumped["gpu_stores"] - classes.gpu_stores))
        self.trust.load(dumped["doubts"])
        if dumped["orphans"]:
            self.trust.doubt(State.PARTIAL, "orphans_not_saved")
        self.continuity.restore(Life.load(dumped["life"]))
        self._settle()

    # Time

    def tick(self, now: float, poll_seconds: float) -> None:
        """Ask whether all is well, if it is time to."""
        if now < self._next_poll or not self.continuity.can_replay:
            return
        anxious = self.continuity.unanswered or not self.is_connected
        self._next_poll = now + (
            min(poll_seconds, _ANXIOUS_POLL_SECONDS) if anxious else poll_seconds
        )
        before = self.continuity.asked
        self.continuity.poll(rebuild=now >= self._next_rebuild)
        asked = self.continuity.asked
        if asked is not None and asked is not before and asked.purpose is Purpose.REBUILD:
            self._next_rebuild = now + poll_seconds * self._rebuild_wait
            self._rebuild_wait = min(2 * self._rebuild_wait, _LONGEST_REBUILD_WAIT)
        self._settle()

    def silent_for(self, now: float) -> float | None:
        """Seconds since the last sign of life: a frame, an answer, or a connection that is up."""
        if self.connection and self.connection in self._up:
            return 0.0
        signs = (self.last_event, self.last_answer, self._restored_sign)
        newest = max((sign for sign in signs if sign is not None), default=None)
        return None if newest is None else now - newest

    def standing(self, now: float) -> Standing:
        """How much to trust what is claimed of the worker, at `now` (`time.monotonic`)."""
        silent = self.silent_for(now)
        last = self.continuity.life.last
        state, reason = self._state(silent)
        return Standing(state, reason, silent, last if last >= 0 else None)

    def _state(self, silent: float | None) -> tuple[State, str]:
        """See the tables in `kvevents.trust`."""
        trust = self.trust
        if self.rivals:
            return State.DEGRADED, "two_engines_one_name"
        if trust.state is State.UNKNOWN or not self.continuity.begun:
            return trust.state, trust.reason
        if not self.is_connected:
            return State.STALE, "disconnected"
        if self.continuity.unanswered and trust.state is not State.RECOVERING:
            return State.STALE, "replay_unanswered"
        if self._stale_after and silent is not None and silent > self._stale_after:
            return State.STALE, "silent"
        return trust.state, trust.reason


def _arrival(frame: Frame, batch: Batch | None) -> Arrival:
    size = _DECODED * len(frame.payload)
    fingerprint = fingerprint_of(frame.payload)
    return Arrival(frame.sequence, fingerprint, batch, size, flaw_of(batch), frame.epoch)
