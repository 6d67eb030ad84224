"""What the answer to a replay request means.

A replay is requested from the last accepted frame on, not from the one after it. If the engine has
another frame of that number, or never got that far, it is another engine, even if it has passed the
number that is waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from indexer import TrustState
from kvevents.sequencing.actions import ReplayReason
from kvevents.sequencing.transitions import Phase
from kvevents.trust import Downgrade

if TYPE_CHECKING:
    from kvevents.sequencing.actions import ReceivedFrame, ReplayRequest
    from kvevents.sequencing.transitions import EngineState, ReplayProgress

_MAX_ATTEMPTS = 3  # replays in a row without progress; one without any answer counts twice
_MISSES_THAT_PROVE = 2  # complete answers from frame 0 without any frame that was accepted


class ReplayAnswers:
    """Handles the answers to one worker's replay requests, by changing `state`.

    Attributes:
        failed: whether the last answer ended without being complete.
    """

    def __init__(self, state: EngineState) -> None:
        self._state = state
        self.failed = False

    def _current(self, request: ReplayRequest) -> ReplayProgress | None:
        """The progress of `request`, None if another one has replaced it."""
        replay = self._state.replay
        return replay if replay is not None and replay.request is request else None

    # Frames

    def on_frame(self, request: ReplayRequest, frame: ReceivedFrame) -> None:
        """Handle one frame of an answer; they come in the order of their numbers."""
        state, log = self._state, self._state.log
        replay = self._current(request)
        if replay is None:
            return
        is_first, replay.answered = not replay.answered, True
        log.incarnation.highest_known = max(log.incarnation.highest_known, frame.sequence)
        if state.is_other_incarnation(frame.epoch):
            state.restart(None)
            # The engine itself says which incarnation is its present one.
            state.former_epochs = [e for e in state.former_epochs if e != frame.epoch]
        elif is_first and replay.starts_over:
            self._consider_starting_over(replay, frame)
        if state.replay is not replay:
            return
        if state.phase is Phase.UNSTARTED:
            log.drop_other_epochs(frame)
            self._start_with(replay, frame)
        elif frame.sequence <= log.incarnation.last:
            self._compare(replay, frame)
        elif frame.sequence == log.incarnation.last + 1 or is_first:
            self._go_on_with(replay, frame)
        elif log.buffer.get(frame.sequence) is None:
            state.buffer(frame)  # the answer has a gap: request it again when the answer has ended

    def _consider_starting_over(self, replay: ReplayProgress, frame: ReceivedFrame) -> None:
        """Drop what was learned if the first frame of a rebuild or resync allows it."""
        state, log = self._state, self._state.log
        reason = replay.request.reason
        if frame.sequence and reason is ReplayReason.REBUILD:
            state.can_rebuild = False  # the engine has dropped its first frames: keep what we have
            return
        known = None if state.phase is Phase.UNSTARTED else log.incarnation.has(frame)
        if known is False:
            state.restart(None)
            return
        highest = log.incarnation.highest_known
        if reason is ReplayReason.RESYNC:
            highest = frame.sequence
        if state.phase is Phase.SUSPECT and not known:
            # Buffered frames may be a former publisher's, unless they came after it reconnected.
            if not state.reconnected:
                highest = max([highest, *log.buffer.numbers()])
            state.drop_superseded()
        state.forget_incarnation()
        state.replay, log.incarnation.highest_known = replay, highest
        state.start_over()
        state.begin_recovery(reason.value)

    def _start_with(self, replay: ReplayProgress, frame: ReceivedFrame) -> None:
        """Handle the first frame that is known of an engine."""
        state, log = self._state, self._state.log
        if frame.sequence == 0:
            state.begin()
        else:
            state.can_rebuild = False
            first = min([frame.sequence, *log.buffer.numbers()])
            state.join_late(first, "replay_truncated", recoverable=False)
            log.give_up_before(frame.sequence, "replay_truncated")
        self._accept(replay, frame)

    def _go_on_with(self, replay: ReplayProgress, frame: ReceivedFrame) -> None:
        """Handle the next frame, or the first one that the engine still has."""
        log = self._state.log
        is_truncated = frame.sequence > log.incarnation.last + 1
        is_unverified = log.incarnation.last >= 0 and not (replay.matched or replay.advanced)
        if is_truncated or is_unverified:
            log.emit(Downgrade(TrustState.DEGRADED, "replay_truncated"))
        if is_truncated:
            log.give_up_before(frame.sequence, "replay_truncated")
        self._accept(replay, frame)

    def _accept(self, replay: ReplayProgress, frame: ReceivedFrame) -> None:
        log = self._state.log
        replay.advanced = True
        log.counts.replayed += 1
        log.incarnation.replayed_to = frame.sequence
        log.accept(frame)
        log.drop_accepted()
        self._state.accept_buffered()

    def _compare(self, replay: ReplayProgress, frame: ReceivedFrame) -> None:
        """Tell by a frame that was accepted before whether the engine is the same one."""
        state = self._state
        same = state.log.incarnation.has(frame)
        if same:
            replay.matched = True
            state.misses = 0
            state.reconnected = False
            state.clear_suspicion()
            state.accept_buffered()
        elif same is False and not frame.decode_error:
            state.restart(None)

    # The end

    def on_finished(self, request: ReplayRequest, *, complete: bool) -> None:
        """Handle the end of an answer; complete: the engine itself said that it is over."""
        state, log = self._state, self._state.log
        replay = self._current(request)
        if replay is None:
            return
        state.replay = None
        self.failed = state.can_replay and not complete
        if state.phase is not Phase.UNSTARTED:
            log.drop_accepted()
        if complete and replay.starts_over:
            log.incarnation.highest_known = log.incarnation.last  # it never got further
        if not complete:
            log.counts.replay_failures += state.can_replay
            if replay.advanced:
                state.attempts = 0
            elif not replay.answered:
                state.attempts += 1
            is_unstarted = state.phase is Phase.UNSTARTED
            self._conclude(replay, "joined_late" if is_unstarted else "frames_lost")
        elif state.phase is Phase.UNSTARTED and not log.buffer:
            state.begin()  # the engine has published nothing yet
            self._conclude(replay, "")
        elif self._misses_known_frames(replay):
            self._suspect_replacement(request)
        else:
            state.attempts = 0 if replay.advanced else state.attempts
            self._conclude(replay, "replay_incomplete")

    def _misses_known_frames(self, replay: ReplayProgress) -> bool:
        """Whether a complete answer does not have the last frame that was accepted."""
        state = self._state
        is_nothing_known = state.phase is Phase.UNSTARTED or state.log.incarnation.last < 0
        if is_nothing_known or replay.matched or replay.advanced:
            return False
        return replay.request.start == 0 or not replay.answered

    def _suspect_replacement(self, request: ReplayRequest) -> None:
        """Two such answers from frame 0 on prove that the engine was replaced."""
        state = self._state
        state.misses += request.start == 0
        state.suspect("publisher_replaced")
        if state.misses >= _MISSES_THAT_PROVE:
            state.restart(None)
        else:
            state.begin_recovery(state.suspicion)
            state.request_replay(ReplayReason.VERIFY)

    def _conclude(self, replay: ReplayProgress, reason: str) -> None:
        """Request again what is still missing after an answer, or go on without it."""
        state, log = self._state, self._state.log
        if state.phase is Phase.SUSPECT and replay.advanced:
            state.leave_suspicion_unresolved()  # frames came, but none that could be compared
        elif log.incarnation.last < 0:
            state.clear_suspicion()
        state.accept_buffered()
        if state.is_in_order and log.incarnation.highest_known <= log.incarnation.last:
            state.attempts = 0
            state.end_recovery()
            return
        state.attempts += 1
        is_silent = state.phase is Phase.UNSTARTED and not log.buffer
        if is_silent or state.attempts >= _MAX_ATTEMPTS or not state.can_replay:
            state.give_up(reason)
        elif state.phase is Phase.UNSTARTED:
            state.request_replay(ReplayReason.START)
        else:
            verify = state.phase is Phase.SUSPECT
            next_reason = ReplayReason.VERIFY if verify else ReplayReason.GAP
            state.request_replay(next_reason, log.incarnation.last)
