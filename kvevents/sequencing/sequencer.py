"""Which frame of a worker comes next, what is missing, and whose life it is. No clock, no I/O.

An engine numbers its frames from 0 and says nothing when it starts anew. So besides the numbers,
fingerprints of the newest frames are kept: a frame that comes again is a duplicate, another one
under a number that was seen is from another engine. A replay is asked for from the last applied
frame on, not from the one after it: if that one has another fingerprint, or the engine has never
got so far, the publisher was replaced, even if it has passed the number we wait for.

What is to be done (apply a frame, drop what is claimed, ask for a replay) is done at once by
`perform`, so that doubts and what removes them come in the order of the frames they are about.
While a replay is awaited, live frames after a hole (or, if the publisher is in doubt, all of them)
are held; they are never dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from indexer import TrustState
from kvevents.sequencing.actions import ReplayReason, ReplayRequest, Restart
from kvevents.sequencing.progress import Progress
from kvevents.stream.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvevents.budget import Budget
    from kvevents.sequencing.actions import Action, ReceivedFrame
    from kvevents.sequencing.incarnation import Incarnation

_TRIES = 3  # answers without progress before a hole is given up
_FORMER_EPOCHS = 8
_AFRESH = (ReplayReason.REBUILD, ReplayReason.RESYNC)


class FrameSequencer(Progress):
    """The frames of one worker, in order; see there for what is inherited.

    can_replay: whether there is anybody to ask. suspect: why the publisher may have been replaced,
    or "". publisher_in_doubt: whether that was never found out. asked: the replay that is awaited.
    unanswered: whether the last one's answer was not complete.
    """

    def __init__(
        self, trust: Trust, budget: Budget, perform: Callable[[Action], None], *, can_replay: bool
    ) -> None:
        super().__init__(trust, budget, perform)
        self.can_replay = can_replay
        self.suspect = ""
        self.publisher_in_doubt = False
        self.asked: ReplayRequest | None = None
        self.unanswered = False
        self._former_epochs: list[bytes] = []
        self._rebuildable = True
        self._answered = self._same = self._moved = False
        self._reconnected = False
        self._tries = self._absences = 0

    @property
    def calm(self) -> bool:
        """Whether a flawless frame numbered `life.last + 1` is simply the next one."""
        return self.begun and not self.held and not self.suspect

    # What happens

    def live(self, arrival: ReceivedFrame) -> None:
        """A frame has been published."""
        if arrival.epoch in self._former_epochs and arrival.timestamp <= self.life.newest:
            self.counts.late += 1
        elif self._is_other_life(arrival.epoch):
            self._restart(arrival)
        elif not self.begun:
            self._first(arrival)
        elif arrival.sequence <= self.life.last:
            self._behind(arrival)
        elif (held := self.held.get(arrival.sequence)) is not None:
            if held.fingerprint == arrival.fingerprint:
                self.counts.duplicates += 1
            elif held.flaw:
                self._hold(arrival)
                self._release()
            elif not arrival.flaw:
                self._restart(arrival)
        else:
            self._ahead(arrival)

    def heartbeat(self, sequence: int, epoch: bytes) -> bool:
        """The publisher says how far it has got, give or take one; whether that is as far as we.

        A heartbeat may carry the number of the newest frame, or of the next.
        """
        if epoch in self._former_epochs:
            return True
        if self._is_other_life(epoch):
            self._restart(None)
            self.life.epoch = epoch
            return True
        if self.begun and sequence > self.life.last + 1:
            self.life.head = max(self.life.head, sequence - 1)
            if self.asked is None:
                self.trust.begin_recovery("frames_missing")
                self._ask(ReplayReason.GAP, self.life.last)
            return True
        return sequence <= self.life.last

    def _is_other_life(self, epoch: bytes) -> bool:
        return bool(epoch) and bool(self.life.epoch) and epoch != self.life.epoch

    def connected(self, doubt: str) -> None:
        """The publisher speaks through a new connection from now on.

        doubt: why it may be another publisher, or "".
        """
        if doubt and self.life.last < 0 and self.begun and self.can_replay:
            self.begun = False  # there is no frame to know the publisher by
            self.trust.begin_recovery(doubt)
        self.suspect = self.suspect or (doubt if self.begun else "")
        self._reconnected = bool(doubt)
        self.held.reconnected()
        if doubt and not self.begun:
            self.held.drop_old(everything=True)
        if self.can_replay:  # what was asked before may be answered by the former publisher
            if not self.begun:
                self._ask(ReplayReason.START)
            elif self.suspect:
                self.trust.begin_recovery(self.suspect)
                self._ask(ReplayReason.VERIFY, self.life.last)
        elif self.suspect:
            self._suspicion_stays()

    def poll(self, *, rebuild: bool) -> None:
        """Time has passed: see whether all is well; rebuild: and make good what was lost."""
        if self.can_replay and self.asked is None:
            if not self.begun:
                self._ask(ReplayReason.START)
            elif rebuild and self._rebuildable and self.trust.recoverable:
                self._ask(ReplayReason.REBUILD)
            else:
                self._ask(ReplayReason.POLL, self.life.last)

    def resync(self) -> None:
        """Learn anew what can be replayed; without a replay, what comes."""
        if self.can_replay:
            self.trust.begin_recovery("resync")
            self._ask(ReplayReason.RESYNC)
        elif self.begun:
            self._give_up("resync")
            self._afresh()
            self.trust.join_late("resync", mendable=False)

    def restore(self, life: Incarnation) -> None:
        """Go on where `life` had got to; before anything has come."""
        self.life = life
        self.begun, self._fresh = True, False
        self.connected("restored")

    def leave(self) -> None:
        """The worker is forgotten."""
        self.asked = None
        self.held.drop_old(everything=True)

    def replayed(self, ask: ReplayRequest, arrival: ReceivedFrame) -> None:
        """A frame has come in answer to `ask`; they come in the order of their numbers."""
        if ask is not self.asked:
            return
        first, self._answered = not self._answered, True
        self.life.head = max(self.life.head, arrival.sequence)
        if self._is_other_life(arrival.epoch):
            self._restart(None)
            self._revive(arrival.epoch)
        elif first and ask.purpose in _AFRESH:
            self._consider_afresh(ask, arrival)
        if ask is not self.asked:
            pass
        elif not self.begun:
            self._drop_other_epochs(arrival)
            self._first_replayed(arrival)
        elif arrival.sequence <= self.life.last:
            self._compare(arrival)
        elif arrival.sequence == self.life.last + 1 or first:
            self._next_replayed(arrival)
        elif self.held.get(arrival.sequence) is None:
            self._hold(arrival)  # a hole in the answer: ask again when it has ended

    def ended(self, ask: ReplayRequest, *, complete: bool) -> None:
        """The answer to `ask` is over; complete: the engine said so itself."""
        if ask is not self.asked:
            return
        self.asked = None
        self.unanswered = self.can_replay and not complete
        self._drop_applied()
        if complete and ask.purpose in _AFRESH:
            self.life.head = self.life.last  # it has never got further
        if not complete:
            self.counts.replay_failures += self.can_replay
            self._tries += 0 if self._answered else 1
            self._settle("frames_lost" if self.begun else "joined_late")
        elif not self.begun and not self.held:
            self._begin()
            self._settle("")
        elif self._is_absent(ask):
            self._absent(ask)
        else:
            self._tries = 0 if self._moved else self._tries
            self._settle("replay_incomplete")

    # Live frames

    def _first(self, arrival: ReceivedFrame) -> None:
        self._drop_other_epochs(arrival)
        if arrival.sequence == 0 and not arrival.flaw:
            self.held.drop(lambda held: held.timestamp < arrival.timestamp)
            self._begin()
            self._accept(arrival)
            self._release()
            return
        if self.can_replay:
            self.trust.begin_recovery(self.trust.recovery_reason or "joined_late")
            if self.asked is None:
                self._ask(ReplayReason.START)
        self._hold(arrival)
        if not self.can_replay:
            self._give_up("joined_late")

    def _ahead(self, arrival: ReceivedFrame) -> None:
        is_next = arrival.sequence == self.life.last + 1
        if is_next and not self.suspect and not (arrival.flaw and self.can_replay):
            self._accept(arrival)
            self._release()
            return
        if not self.held and not is_next and not self._learns_afresh():
            self.counts.gaps += 1
        if not self.trust.recovery_reason:
            self.trust.begin_recovery(arrival.flaw or "frames_missing")
        if self.asked is None:
            self._ask(ReplayReason.GAP, self.life.last)
        self._hold(arrival)

    def _behind(self, arrival: ReceivedFrame) -> None:
        known = self.life.has(arrival)
        if arrival.epoch and arrival.epoch == self.life.epoch:
            if known is False and self._was_empty == arrival.sequence == self.life.last:
                self._accept(arrival)  # what stood under this number was a heartbeat
            else:
                self.counts.duplicates += bool(known) and arrival.sequence > self.life.replayed_to
        elif known:
            self.counts.duplicates += arrival.sequence > self.life.replayed_to
        elif arrival.flaw:  # a damaged copy, or of another engine
            self.suspect = self.suspect or arrival.flaw
            if not self.can_replay:
                self._suspicion_stays()
            elif self.asked is None:
                self.trust.begin_recovery(self.suspect)
                self._ask(ReplayReason.VERIFY, self.life.last)
        elif arrival.sequence and known is None and arrival.timestamp < self.life.newest:
            self.counts.late += 1
        else:
            self._restart(arrival)

    def _hold(self, arrival: ReceivedFrame) -> None:
        if not self.held.hold(arrival):
            self.counts.overflows += 1
            self._give_up("overflow", arrival)

    # Moving on

    def _release(self) -> None:
        """Accept held frames that are next by now; all is well if none remains."""
        while not self.suspect:
            arrival = self.held.get(self.life.last + 1)
            if arrival is None or (arrival.flaw and self.can_replay):
                break
            self._accept(self.held.pop(arrival.sequence))
        if self.calm and (
            self.asked is None or self.asked.purpose in (ReplayReason.GAP, ReplayReason.POLL)
        ):
            self.trust.end_recovery()

    def _suspicion_stays(self) -> None:
        self.trust.downgrade(TrustState.DEGRADED, self.suspect)
        self.publisher_in_doubt = True
        self.suspect = ""
        self._reconnected = False

    def _give_up(self, reason: str, arrival: ReceivedFrame | None = None) -> None:
        """Go on with what is there, and with `arrival`, for which there is no room."""
        self.asked = None
        self._tries = 0
        numbers = [*self.held.numbers(), *([] if arrival is None else [arrival.sequence])]
        if not self.begun:
            if numbers:
                mendable = self.can_replay and self._rebuildable
                self._join_late(min(numbers), reason, mendable=mendable)
            else:
                self.trust.mark_unheard()
        elif self.suspect:
            self._suspicion_stays()
        self.suspect = ""
        self._skip_to(max([*numbers, self.life.head]) + (arrival is None), reason)
        if arrival is not None and arrival.sequence > self.life.last:
            self._accept(arrival)
        self._drop_applied()
        self.trust.end_recovery()

    # Another life

    def _restart(self, arrival: ReceivedFrame | None) -> None:
        """The publisher was replaced; `arrival` is of the new one."""
        self.counts.restarts += 1
        if self.life.epoch:
            self._former_epochs = [*self._former_epochs[-_FORMER_EPOCHS:], self.life.epoch]
        self.held.drop_old(everything=not self._reconnected)
        self._forget_life()
        self._fresh = False
        self.trust.on_restart()
        self._perform(Restart())
        if arrival is not None:
            self._first(arrival)
        elif self.can_replay:
            self.trust.begin_recovery("restarted")
            self._ask(ReplayReason.START)

    def _revive(self, epoch: bytes) -> None:
        """The engine itself says that this is its life; what seemed to follow it came late."""
        self._former_epochs = [former for former in self._former_epochs if former != epoch]

    def _forget_life(self) -> None:
        super()._forget_life()
        self.suspect = ""
        self.publisher_in_doubt = False
        self.asked = None
        self._tries = self._absences = 0
        self._rebuildable = True

    def _consider_afresh(self, ask: ReplayRequest, arrival: ReceivedFrame) -> None:
        """The first answer to a rebuild or a resync has come."""
        if arrival.sequence and ask.purpose is ReplayReason.REBUILD:
            self._rebuildable = False
            return
        known = self.life.has(arrival) if self.begun else None
        if known is False:
            self._restart(None)
            return
        head = arrival.sequence if ask.purpose is ReplayReason.RESYNC else self.life.head
        if self.suspect and not known:  # what is held may be of a former publisher
            head = max([head, *([] if self._reconnected else self.held.numbers())])
            self.held.drop_old(everything=not self._reconnected)
        self._forget_life()
        self.asked, self.life.head = ask, head
        self._afresh()
        self.trust.begin_recovery(ask.purpose.value)

    def _learns_afresh(self) -> bool:
        return self.asked is not None and self.asked.purpose in _AFRESH

    # Answers to replays

    def _ask(self, purpose: ReplayReason, start: int = 0) -> None:
        self.asked = ReplayRequest(purpose, max(start, 0))
        self._answered = self._same = self._moved = False
        self.counts.replays += self.can_replay
        self._perform(self.asked)

    def _first_replayed(self, arrival: ReceivedFrame) -> None:
        if arrival.sequence == 0:
            self._begin()
        else:
            self._rebuildable = False
            first = min([arrival.sequence, *self.held.numbers()])
            self._join_late(first, "replay_truncated", mendable=False)
            self._skip_to(arrival.sequence, "replay_truncated")
        self._accept_replayed(arrival)

    def _next_replayed(self, arrival: ReceivedFrame) -> None:
        truncated = arrival.sequence > self.life.last + 1
        if truncated or (self.life.last >= 0 and not (self._same or self._moved)):
            self.trust.downgrade(TrustState.DEGRADED, "replay_truncated")
        if truncated:
            self._skip_to(arrival.sequence, "replay_truncated")
        self._accept_replayed(arrival)

    def _accept_replayed(self, arrival: ReceivedFrame) -> None:
        self._moved = True
        self.counts.replayed += 1
        self.life.replayed_to = arrival.sequence
        self._accept(arrival)
        self._drop_applied()
        self._release()

    def _compare(self, arrival: ReceivedFrame) -> None:
        same = self.life.has(arrival)
        if same:
            self._same = True
            self._absences = 0
            self.suspect = ""
            self._reconnected = False
            self._release()
        elif same is False and not arrival.flaw:
            self._restart(None)

    def _is_absent(self, ask: ReplayRequest) -> bool:
        """Whether the engine has answered all it has, and the last frame we know is not of it."""
        nothing_known = not self.begun or self.life.last < 0
        if nothing_known or self._same or self._moved:
            return False
        return ask.start == 0 or not self._answered

    def _absent(self, ask: ReplayRequest) -> None:
        """Asked from the beginning and twice so, it is proof that the publisher was replaced."""
        self._absences += ask.start == 0
        self.suspect = self.suspect or "publisher_replaced"
        if self._absences > 1:
            self._restart(None)
        else:
            self.trust.begin_recovery(self.suspect)
            self._ask(ReplayReason.VERIFY)

    def _settle(self, reason: str) -> None:
        """An answer is over: ask again for what is still missing, or go on without."""
        if self.suspect and self._moved:  # frames came, but none that could be compared
            self._suspicion_stays()
        elif self.life.last < 0:
            self.suspect = ""
        self._release()
        if self.calm and self.life.head <= self.life.last:
            self._tries = 0
            self.trust.end_recovery()
            return
        self._tries += 1
        if not (self.begun or self.held) or self._tries >= _TRIES or not self.can_replay:
            self._give_up(reason)
        elif not self.begun:
            self._ask(ReplayReason.START)
        else:
            purpose = ReplayReason.VERIFY if self.suspect else ReplayReason.GAP
            self._ask(purpose, self.life.last)
