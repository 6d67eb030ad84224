"""How far the frames of one worker have been applied, and what of them was lost. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from indexer import TrustState
from kvevents.sequencing.actions import Apply, FrameCounts, Rebuild
from kvevents.sequencing.incarnation import Incarnation
from kvevents.sequencing.reorder_buffer import ReorderBuffer
from kvevents.stream.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvevents.budget import Budget
    from kvevents.sequencing.actions import Action, ReceivedFrame


class Progress:
    """Accepts frames in the order of their numbers, and gives up those that will not come.

    perform: does a step at once, so that `trust` hears of losses and of what makes up for them in
    the order of the frames they are about. begun: whether any frame was applied, or the engine is
    known to have published none. life: of the engine. held: frames that wait for those before them.
    """

    def __init__(self, trust: Trust, budget: Budget, perform: Callable[[Action], None]) -> None:
        self.trust = trust
        self.life = Incarnation()
        self.begun = False
        self.counts = FrameCounts()
        self.held = ReorderBuffer(budget)
        self._perform = perform
        self._fresh = True  # nothing is claimed
        self._was_empty = -1  # number of the newest frame without events

    def _begin(self) -> None:
        self.begun = True
        if self._fresh:
            self.trust.on_begin()
        else:
            self.trust.mark_heard()
        self._fresh = False

    def _join_late(self, first: int, reason: str, *, mendable: bool) -> None:
        self.begun, self._fresh = True, False
        self.life.last = first - 1
        self.trust.join_late(reason, mendable=mendable)

    def _accept(self, arrival: ReceivedFrame) -> None:
        """The frame is the next one, or as near as we shall get to it."""
        self.life.accept(arrival.sequence, arrival.fingerprint, arrival.timestamp)
        if arrival.epoch and not self.life.epoch:
            self.life.epoch = arrival.epoch
            self._drop_other_epochs(arrival)
        if arrival.epoch and arrival.batch is not None and not arrival.batch.events:
            self._was_empty = arrival.sequence
        self._perform(Apply(arrival))
        if arrival.flaw:  # what is not there came last: not even a clear makes up for it
            self.trust.downgrade(TrustState.DEGRADED, arrival.flaw)

    def _skip_to(self, sequence: int, reason: str) -> None:
        """What comes before `sequence` and is not held will never come."""
        for number in self.held.numbers():
            if self.life.last < number < sequence and self.held.get(number) is not None:
                self._miss(number, reason)
                self._accept(self.held.pop(number))
        self._miss(sequence, reason)

    def _miss(self, sequence: int, reason: str) -> None:
        missed = sequence - self.life.last - 1
        if missed > 0:
            self.counts.missed += missed
            self.life.last = sequence - 1
            self.trust.downgrade(TrustState.DEGRADED, reason)

    def _drop_applied(self) -> None:
        last = self.life.last
        self.held.drop(lambda held: self.begun and held.sequence <= last)

    def _drop_other_epochs(self, arrival: ReceivedFrame) -> None:
        """Hold frames no longer that say another epoch than `arrival`, which is of this life."""
        if arrival.epoch:
            self.held.drop(lambda held: held.epoch not in (b"", arrival.epoch))

    def _forget_life(self) -> None:
        self.life = Incarnation()
        self.begun = False

    def _afresh(self) -> None:
        """What was learned in this life is dropped, to be learned again."""
        self._fresh = True
        self.trust.on_begin()
        self._perform(Rebuild())
