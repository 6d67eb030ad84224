"""Puts the frames of one worker in order, and finds out what is missing. No clock, no I/O.

An engine numbers its frames from 0 and does not announce that it starts anew. So the sequencer
keeps fingerprints of the newest frames besides their numbers: an equal frame is a duplicate, and
another frame under a known number comes from another engine. Every input returns the actions that
it leads to, trust changes among them, in the order of the frames they are about. While a replay is
awaited, live frames wait in the reorder buffer. Frames that are not applied are counted by reason
(see `FrameCounts`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvevents.sequencing.actions import ReplayReason
from kvevents.sequencing.live_frames import LiveFrames
from kvevents.sequencing.replay_answers import ReplayAnswers
from kvevents.sequencing.transitions import EngineState, Phase
from kvevents.trust import JoinedLate

if TYPE_CHECKING:
    from kvevents.budget import Budget
    from kvevents.sequencing.actions import Action, FrameCounts, ReceivedFrame, ReplayRequest
    from kvevents.sequencing.incarnation import Incarnation

_FOLLOWING = Phase.FOLLOWING


class FrameSequencer:
    """The sequencing of one worker's frames.

    Args:
        budget: memory for frames that wait, shared with other workers.
        can_replay: whether there is a replay socket to ask.
    """

    def __init__(self, budget: Budget, *, can_replay: bool) -> None:
        self._state = EngineState(budget, can_replay=can_replay)
        self._log = self._state.log
        self._live_frames = LiveFrames(self._state)
        self._replay_answers = ReplayAnswers(self._state)

    # What is known

    @property
    def phase(self) -> Phase:
        """What is done with frames at present."""
        return self._state.phase

    @property
    def has_started(self) -> bool:
        """Whether any frame was accepted, or the engine is known to have published none."""
        return self._state.phase is not Phase.UNSTARTED

    @property
    def incarnation(self) -> Incarnation:
        """How far the present engine's frames have been accepted."""
        return self._log.incarnation

    @property
    def counts(self) -> FrameCounts:
        """What happened to the frames so far."""
        return self._log.counts

    @property
    def buffered(self) -> int:
        """How many frames wait in the reorder buffer."""
        return len(self._log.buffer)

    @property
    def can_replay(self) -> bool:
        """Whether there is a replay socket to ask."""
        return self._state.can_replay

    @property
    def request(self) -> ReplayRequest | None:
        """The replay request that is under way."""
        return None if self._state.replay is None else self._state.replay.request

    @property
    def is_rebuilding(self) -> bool:
        """Whether the replay under way applies everything again, to make up for losses."""
        replay = self._state.replay
        return replay is not None and replay.request.reason is ReplayReason.REBUILD

    @property
    def replay_failed(self) -> bool:
        """Whether the last replay ended without a complete answer."""
        return self._replay_answers.failed

    @property
    def publisher_in_doubt(self) -> bool:
        """Whether a suspicion that the engine was replaced was never resolved."""
        return self._state.publisher_in_doubt

    # Inputs

    def accept_next(self, sequence: int, epoch: bytes, fingerprint: int, timestamp: float) -> bool:
        """Accept an undamaged live frame if it is simply the next one: the common case, fast.

        Returns False, without having changed anything, if it is not: `on_live_frame` handles it.
        """
        state, log = self._state, self._log
        incarnation = log.incarnation
        if (
            sequence != incarnation.last + 1
            or epoch != incarnation.epoch
            or state.phase is not _FOLLOWING  # and so `state.is_in_order`
            or log.buffer
        ):
            return False
        incarnation.accept(sequence, fingerprint, timestamp)
        incarnation.last_live = sequence
        return True

    def on_live_frame(self, frame: ReceivedFrame) -> list[Action]:
        """A frame was published."""
        self._live_frames.on_frame(frame)
        return self._log.take_actions()

    def on_heartbeat(self, sequence: int, epoch: bytes) -> list[Action]:
        """The publisher says how far it has got: the number of its newest frame, or the next."""
        state, incarnation = self._state, self._log.incarnation
        if epoch in state.former_epochs:
            return []
        if state.is_other_incarnation(epoch):
            state.restart(None)
            self._log.incarnation.epoch = epoch
        elif self.has_started and sequence > incarnation.last + 1:
            incarnation.highest_known = max(incarnation.highest_known, sequence - 1)
            if state.replay is None:
                state.begin_recovery("frames_missing")
                state.request_replay(ReplayReason.GAP, incarnation.last)
        return self._log.take_actions()

    def may_have_missed(self, sequence: int, epoch: bytes) -> bool:
        """Whether a heartbeat tells of a frame that has not come, and none is awaited already."""
        state, last = self._state, self._log.incarnation.last
        return state.replay is None and epoch not in state.former_epochs and sequence > last

    def on_connection_changed(self, suspicion: str) -> list[Action]:
        """The publisher uses another connection from now on.

        Args:
            suspicion: why it may be another publisher; empty if it is the first connection.
        """
        state, log = self._state, self._log
        if suspicion and self.has_started and log.incarnation.last < 0 and state.can_replay:
            # There is no frame to tell the publisher by: learn what it has published, if anything.
            state.phase = Phase.UNSTARTED
            state.begin_recovery(suspicion)
        if suspicion:
            state.suspect(suspicion)
        state.reconnected = bool(suspicion)
        log.buffer.mark_connection_change()
        if suspicion and not self.has_started:
            log.counts.superseded += log.buffer.clear()
        if not state.can_replay:
            if state.phase is Phase.SUSPECT:
                state.leave_suspicion_unresolved()
        # A request that is under way may be answered by the former publisher: replace it.
        elif not self.has_started:
            state.request_replay(ReplayReason.START)
        elif state.phase is Phase.SUSPECT:
            state.begin_recovery(state.suspicion)
            state.request_replay(ReplayReason.VERIFY, log.incarnation.last)
        return log.take_actions()

    def on_poll(self, *, rebuild: bool) -> list[Action]:
        """It is time to look for frames that were lost without a trace.

        Args:
            rebuild: whether applying everything again would help, and is due.
        """
        state = self._state
        if state.can_replay and state.replay is None:
            if not self.has_started:
                state.request_replay(ReplayReason.START)
            elif rebuild and state.can_rebuild:
                state.request_replay(ReplayReason.REBUILD)
            else:
                state.request_replay(ReplayReason.POLL, self._log.incarnation.last)
        return self._log.take_actions()

    def on_resync(self) -> list[Action]:
        """An operator wants the worker's blocks to be learned again from what can be replayed."""
        state = self._state
        if state.can_replay:
            state.begin_recovery("resync")
            state.request_replay(ReplayReason.RESYNC)
        elif self.has_started:
            state.give_up("resync")
            state.start_over()
            self._log.emit(JoinedLate("resync", recoverable=False))
        return self._log.take_actions()

    def on_replayed_frame(self, request: ReplayRequest, frame: ReceivedFrame) -> list[Action]:
        """A frame has come in answer to `request`; they come in the order of their numbers."""
        self._replay_answers.on_frame(request, frame)
        return self._log.take_actions()

    def on_replay_finished(self, request: ReplayRequest, *, complete: bool) -> list[Action]:
        """The answer to `request` is over.

        Args:
            request: as it was returned among the actions.
            complete: whether the engine itself said so.
        """
        self._replay_answers.on_finished(request, complete=complete)
        return self._log.take_actions()

    def on_source_changed(self, *, can_replay: bool) -> None:
        """The worker speaks through another source, with or without a replay socket."""
        self._state.can_replay = can_replay

    def restore(self, incarnation: Incarnation, suspicion: str) -> list[Action]:
        """Go on where `incarnation` had got to; before any other input.

        suspicion: why the engine may be another one; empty if it is known to be the same.
        """
        state = self._state
        self._log.incarnation = incarnation
        state.phase, state.claims_nothing = Phase.FOLLOWING, False
        return self.on_connection_changed(suspicion)

    def resolve_publisher_doubt(self) -> None:
        """All that a former publisher may have announced was dropped."""
        self._state.publisher_in_doubt = False

    def close(self) -> None:
        """Release the memory of buffered frames; no input comes after this."""
        self._state.replay = None
        self._log.buffer.clear()
