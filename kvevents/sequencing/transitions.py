"""What the sequencer knows of the engine behind a stream, and how that changes.

UNSTARTED --begin, join_late--> FOLLOWING --suspect--> SUSPECT
    ^                               |  ^                  |
    |                               |  +--clear_suspicion-+
    +------------restart, forget----+---------------------+
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from indexer import TrustState
from kvevents.sequencing.actions import (
    EngineRestarted,
    ReplayReason,
    ReplayRequest,
    StartOver,
)
from kvevents.sequencing.frame_log import FrameLog
from kvevents.sequencing.incarnation import Incarnation
from kvevents.trust import (
    BeginRecovery,
    Downgrade,
    EndRecovery,
    HeardFromStart,
    JoinedLate,
    NeverHeard,
    Restarted,
    StartedEmpty,
)

if TYPE_CHECKING:
    from kvevents.budget import Budget
    from kvevents.sequencing.actions import ReceivedFrame

_FORMER_EPOCHS = 8


class Phase(Enum):
    """What the sequencer does with the frames of a worker."""

    UNSTARTED = "unstarted"
    """No frame was accepted yet, and the engine is not known to have published none."""
    FOLLOWING = "following"
    """Frames are accepted in order; those behind a gap wait in the reorder buffer."""
    SUSPECT = "suspect"
    """Another engine may have taken the worker's place: all frames wait until that is known."""


class ReplayProgress:
    """What the answer to one replay request has shown so far.

    Attributes:
        request: the request, as it was emitted.
        answered: whether any frame has come.
        matched: whether a frame came that was accepted before, so the engine is the same one.
        advanced: whether a frame came that was accepted because of the replay.
    """

    __slots__ = ("advanced", "answered", "matched", "request")

    def __init__(self, request: ReplayRequest) -> None:
        self.request = request
        self.answered = self.matched = self.advanced = False

    @property
    def starts_over(self) -> bool:
        """Whether the answer replaces what was learned before, if the engine has it all."""
        return self.request.reason in (ReplayReason.REBUILD, ReplayReason.RESYNC)


class EngineState:
    """The state of one worker's sequencing, and its transitions. Each emits its actions in `log`.

    Attributes:
        phase: see `Phase`.
        suspicion: why the engine may be another one; empty outside of phase SUSPECT.
        recovering: why frames are awaited, empty if none are.
        can_replay: whether there is a replay socket to ask.
        can_rebuild: whether the engine may still have its frame 0.
        replay: the replay that is under way, None if none is.
        attempts: replays in a row without progress; one without any answer counts twice.
        misses: replays in a row that showed, from frame 0 on, no frame that was accepted.
        claims_nothing: whether nothing is claimed of the worker yet, in any incarnation.
        reconnected: whether the suspicion came with a new connection, so that frames from before
            and after it can be told apart.
        publisher_in_doubt: whether a suspicion was given up without being resolved.
        former_epochs: names of incarnations that have ended, the newest last.
    """

    def __init__(self, budget: Budget, *, can_replay: bool) -> None:
        self.log = FrameLog(budget)
        self.phase = Phase.UNSTARTED
        self.suspicion = ""
        self.recovering = ""
        self.can_replay = can_replay
        self.can_rebuild = True
        self.replay: ReplayProgress | None = None
        self.attempts = self.misses = 0
        self.claims_nothing = True
        self.reconnected = False
        self.publisher_in_doubt = False
        self.former_epochs: list[bytes] = []

    @property
    def is_in_order(self) -> bool:
        """Whether the next frame can be accepted as it comes."""
        return self.phase is Phase.FOLLOWING and not self.log.buffer

    # Starting

    def begin(self) -> None:
        """The engine is heard from its first frame on."""
        self.phase = Phase.FOLLOWING
        self.log.emit(StartedEmpty() if self.claims_nothing else HeardFromStart())
        self.claims_nothing = False

    def join_late(self, first: int, reason: str, *, recoverable: bool) -> None:
        """The engine published frames before number `first`, the first one that is known."""
        self.phase = Phase.FOLLOWING
        self.claims_nothing = False
        self.log.incarnation.give_up_before(first)
        self.log.emit(JoinedLate(reason, recoverable))

    def start_with(self, frame: ReceivedFrame) -> None:
        """Handle the first live frame of an incarnation."""
        self.log.drop_other_epochs(frame)
        if frame.sequence == 0 and not frame.decode_error:
            # Buffered frames that are older than frame 0 are of a former engine.
            older = self.log.buffer.drop(lambda buffered: buffered.timestamp < frame.timestamp)
            self.log.counts.superseded += older
            self.begin()
            self.log.accept(frame)
            self.accept_buffered()
            return
        if self.can_replay:
            self.begin_recovery(self.recovering or "joined_late")
            if self.replay is None:
                self.request_replay(ReplayReason.START)
        self.buffer(frame)
        if not self.can_replay:
            self.give_up("joined_late")

    def start_over(self) -> None:
        """Drop what was learned: it is about to be learned again."""
        self.claims_nothing = True
        self.log.emit(StartedEmpty())
        self.log.emit(StartOver())

    # Following

    def begin_recovery(self, reason: str) -> None:
        """Something is missing that may yet come."""
        self.recovering = reason
        self.log.emit(BeginRecovery(reason))

    def end_recovery(self) -> None:
        """Nothing more is awaited."""
        self.recovering = ""
        self.log.emit(EndRecovery())

    def request_replay(self, reason: ReplayReason, start: int = 0) -> None:
        """Request a replay from frame `start` on, in place of the one that is under way.

        Without a replay socket the request is a short wait for frames that are only reordered.
        """
        self.replay = ReplayProgress(ReplayRequest(reason, max(start, 0)))
        self.log.counts.replays += self.can_replay
        self.log.emit(self.replay.request)

    def buffer(self, frame: ReceivedFrame) -> None:
        """Let a frame wait; without room for it, go on without the frames that are missing."""
        if not self.log.buffer.add(frame):
            self.log.counts.overflows += 1
            self.give_up("overflow", frame)

    def accept_buffered(self) -> None:
        """Accept the buffered frames whose turn it is; if none remain, recovery has ended."""
        log = self.log
        while self.phase is not Phase.SUSPECT:
            frame = log.buffer.get(log.incarnation.last + 1)
            if frame is None or (frame.decode_error and self.can_replay):
                break  # a replay may bring an undamaged copy
            log.accept(log.buffer.pop(frame.sequence))
        awaits_more = self.replay is not None and self.replay.request.reason not in (
            ReplayReason.GAP,
            ReplayReason.POLL,
        )
        if self.is_in_order and not awaits_more:
            self.end_recovery()

    def give_up(self, reason: str, frame: ReceivedFrame | None = None) -> None:
        """Go on with the buffered frames, and without those that are missing between them.

        Args:
            reason: why; it becomes the reason of the worker's trust.
            frame: one more live frame, for which the buffer has no room.
        """
        log = self.log
        self.replay = None
        self.attempts = 0
        numbers = [*log.buffer.numbers(), *([] if frame is None else [frame.sequence])]
        if self.phase is Phase.UNSTARTED:
            if numbers:
                recoverable = self.can_replay and self.can_rebuild
                self.join_late(min(numbers), reason, recoverable=recoverable)
            else:
                log.emit(NeverHeard())
        elif self.phase is Phase.SUSPECT:
            self.leave_suspicion_unresolved()
        last = max([*numbers, log.incarnation.highest_known])
        log.give_up_before(last + (frame is None), reason)
        if frame is not None and frame.sequence > log.incarnation.last:
            log.accept(frame)
        log.drop_accepted()
        self.end_recovery()

    # Another engine?

    def suspect(self, reason: str) -> None:
        """Another engine may have taken the worker's place; the first reason stays."""
        if self.phase is Phase.FOLLOWING:
            self.phase, self.suspicion = Phase.SUSPECT, reason

    def clear_suspicion(self) -> None:
        """The engine is the one it was, or there is nothing to tell it by."""
        if self.phase is Phase.SUSPECT:
            self.phase = Phase.FOLLOWING
        self.suspicion = ""

    def leave_suspicion_unresolved(self) -> None:
        """Go on with the engine though it may be another one: what is claimed may be wrong."""
        self.log.emit(Downgrade(TrustState.DEGRADED, self.suspicion))
        self.publisher_in_doubt = True
        self.reconnected = False
        self.clear_suspicion()

    def is_other_incarnation(self, epoch: bytes) -> bool:
        """Whether an epoch names another incarnation than the present one."""
        return (
            bool(epoch)
            and bool(self.log.incarnation.epoch)
            and (epoch != self.log.incarnation.epoch)
        )

    def restart(self, frame: ReceivedFrame | None) -> None:
        """Another engine has taken the worker's place.

        Args:
            frame: the live frame of the new engine that has shown it; None if a replay has.
        """
        log = self.log
        log.counts.restarts += 1
        if log.incarnation.epoch:
            self.former_epochs = [*self.former_epochs[-_FORMER_EPOCHS:], log.incarnation.epoch]
        self.drop_superseded()
        self.forget_incarnation()
        self.claims_nothing = False
        log.emit(Restarted())
        log.emit(EngineRestarted())
        if frame is not None:
            self.start_with(frame)
        elif self.can_replay:
            self.begin_recovery("restarted")
            self.request_replay(ReplayReason.START)

    def drop_superseded(self) -> None:
        """Drop the buffered frames of a former engine: all, or those before it reconnected."""
        buffer = self.log.buffer
        dropped = buffer.drop_from_former_connection() if self.reconnected else buffer.clear()
        self.log.counts.superseded += dropped

    def forget_incarnation(self) -> None:
        """Expect the first frame of an engine of which nothing is known."""
        self.log.incarnation = Incarnation()
        self.phase = Phase.UNSTARTED
        self.suspicion = ""
        self.publisher_in_doubt = False
        self.replay = None
        self.attempts = self.misses = 0
        self.can_rebuild = True
