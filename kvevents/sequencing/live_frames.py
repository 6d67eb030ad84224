"""What a live frame means, by its number and fingerprint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvevents.sequencing.actions import ReplayReason
from kvevents.sequencing.transitions import Phase

if TYPE_CHECKING:
    from kvevents.sequencing.actions import ReceivedFrame
    from kvevents.sequencing.transitions import EngineState


class LiveFrames:
    """Handles the live frames of one worker, by changing `state`."""

    def __init__(self, state: EngineState) -> None:
        self._state = state

    def on_frame(self, frame: ReceivedFrame) -> None:
        """Accept, buffer or drop a frame, or find by it that the engine was replaced."""
        state, log = self._state, self._state.log
        if (
            frame.epoch in state.former_epochs
            and frame.timestamp <= log.incarnation.newest_timestamp
        ):
            log.counts.late += 1
            return
        if state.is_other_incarnation(frame.epoch):
            state.restart(frame)
        elif state.phase is Phase.UNSTARTED:
            state.start_with(frame)
        elif frame.sequence <= log.incarnation.last:
            self._behind(frame)
        elif (buffered := log.buffer.get(frame.sequence)) is not None:
            self._buffered_again(frame, buffered)
        else:
            self._ahead(frame)
        incarnation = self._state.log.incarnation
        incarnation.last_live = max(incarnation.last_live, frame.sequence)

    def _buffered_again(self, frame: ReceivedFrame, buffered: ReceivedFrame) -> None:
        """A frame has the number of one that waits."""
        if buffered.fingerprint == frame.fingerprint:
            self._state.log.counts.duplicates += 1
        elif buffered.decode_error:
            self._state.buffer(frame)  # perhaps an undamaged copy
            self._state.accept_buffered()
        elif frame.decode_error:
            self._state.log.counts.duplicates += 1  # a damaged copy, most likely
        else:
            self._state.restart(frame)

    def _ahead(self, frame: ReceivedFrame) -> None:
        """A frame has a higher number than all that were accepted."""
        state, log = self._state, self._state.log
        is_next = frame.sequence == log.incarnation.last + 1
        is_usable = not (frame.decode_error and state.can_replay)
        if is_next and is_usable and state.phase is Phase.FOLLOWING:
            log.accept(frame)
            state.accept_buffered()
            return
        starts_over = state.replay is not None and state.replay.starts_over
        if not log.buffer and not is_next and not starts_over:
            log.counts.gaps += 1
        if not state.recovering:
            state.begin_recovery(frame.decode_error or "frames_missing")
        if state.replay is None:
            state.request_replay(ReplayReason.GAP, log.incarnation.last)
        state.buffer(frame)

    def _behind(self, frame: ReceivedFrame) -> None:
        """A frame has a number that was accepted, or given up, before.

        It is a duplicate, a late frame, a damaged copy, or a frame of another engine, which has
        begun to count from 0 again.
        """
        state, log = self._state, self._state.log
        incarnation = log.incarnation
        known = incarnation.has(frame)
        is_new_to_us = frame.sequence > incarnation.replayed_to
        if frame.epoch and frame.epoch == incarnation.epoch:
            follows_heartbeat = (
                incarnation.last_without_events == frame.sequence == incarnation.last
            )
            if known is False and follows_heartbeat:
                log.accept(frame)  # a heartbeat had the number of the next frame
            elif known:
                log.counts.duplicates += is_new_to_us
            else:
                log.counts.late += 1
        elif known:
            # A live frame that a replay has brought before is no duplicate.
            log.counts.duplicates += is_new_to_us
        elif frame.decode_error:
            self._suspect(frame.decode_error)
        elif frame.sequence and known is None and frame.timestamp < incarnation.newest_timestamp:
            log.counts.late += 1
            if frame.sequence <= incarnation.last_live and not incarnation.has_given_up(
                frame.sequence
            ):
                # It was accepted long ago, or an engine whose clock is behind has begun anew.
                self._suspect("late_frame")
        else:
            state.restart(frame)

    def _suspect(self, reason: str) -> None:
        """A frame is a copy of one that was accepted, or another engine's."""
        state = self._state
        state.suspect(reason)
        if not state.can_replay:
            state.leave_suspicion_unresolved()
        elif state.replay is None:
            state.begin_recovery(state.suspicion)
            state.request_replay(ReplayReason.VERIFY, state.log.incarnation.last)
