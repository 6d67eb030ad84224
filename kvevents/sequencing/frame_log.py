"""The frames of one engine in the order of their numbers: accepted, buffered or given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from indexer import TrustState
from kvevents.sequencing.actions import Apply, FrameCounts
from kvevents.sequencing.incarnation import Incarnation
from kvevents.sequencing.reorder_buffer import ReorderBuffer
from kvevents.trust import Downgrade

if TYPE_CHECKING:
    from kvevents.budget import Budget
    from kvevents.sequencing.actions import Action, ReceivedFrame


class FrameLog:
    """Accepts frames one after the other, and collects the actions that this leads to.

    Attributes:
        incarnation: how far the present engine's frames have been accepted.
        buffer: live frames that wait for earlier ones.
        counts: what happened to the frames so far.
    """

    def __init__(self, budget: Budget) -> None:
        self.incarnation = Incarnation()
        self.buffer = ReorderBuffer(budget)
        self.counts = FrameCounts()
        self._actions: list[Action] = []

    def emit(self, action: Action) -> None:
        """Add an action to those that `take_actions` returns."""
        self._actions.append(action)

    def take_actions(self) -> list[Action]:
        """The actions since the last call, in the order in which they are to be performed."""
        actions, self._actions = self._actions, []
        return actions

    def accept(self, frame: ReceivedFrame) -> None:
        """Accept a frame as the next one, or as near to the next one as there is."""
        incarnation = self.incarnation
        incarnation.accept(frame.sequence, frame.fingerprint, frame.timestamp)
        if frame.epoch:
            if not incarnation.epoch:
                incarnation.epoch = frame.epoch
                self.drop_other_epochs(frame)
            if frame.batch is not None and not frame.batch.events:
                incarnation.last_without_events = frame.sequence
        self.emit(Apply(frame))
        if frame.decode_error:
            # The missing events came last, so not even a clear among the others makes up for them.
            self.emit(Downgrade(TrustState.DEGRADED, frame.decode_error))

    def give_up_before(self, sequence: int, reason: str) -> None:
        """Accept the buffered frames before `sequence`, and give up those between them."""
        for number in self.buffer.numbers():
            # Accepting a frame may drop others, of another epoch.
            if self.incarnation.last < number < sequence and self.buffer.get(number) is not None:
                self._miss_before(number, reason)
                self.accept(self.buffer.pop(number))
        self._miss_before(sequence, reason)

    def _miss_before(self, sequence: int, reason: str) -> None:
        missed = sequence - self.incarnation.last - 1
        if missed > 0:
            self.counts.missed += missed
            self.incarnation.give_up_before(sequence)
            self.emit(Downgrade(TrustState.DEGRADED, reason))

    def drop_accepted(self) -> None:
        """Remove from the buffer what has been accepted or given up by now."""
        last = self.incarnation.last
        self.buffer.drop(lambda frame: frame.sequence <= last)

    def drop_other_epochs(self, frame: ReceivedFrame) -> None:
        """Remove buffered frames of other epochs than `frame`, which is of this incarnation."""
        if frame.epoch:
            epochs = (b"", frame.epoch)
            self.counts.superseded += self.buffer.drop(lambda b: b.epoch not in epochs)
