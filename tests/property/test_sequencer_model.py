"""The sequencer against engines that restart and a network that loses: no false certainty."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from indexer import TrustState
from kvevents.budget import Budget
from kvevents.sequencing import (
    Action,
    Apply,
    EngineRestarted,
    FrameSequencer,
    ReceivedFrame,
    ReplayRequest,
    StartOver,
)
from kvevents.trust import GpuCleared
from kvevents.trust.trust import Trust
from kvevents.wire.events import AllBlocksCleared, Batch

LIFE = 1000  # a frame's fingerprint is its life times this, plus its number


def arrival(
    life: int,
    sequence: int,
    clock: float = 0.0,
    flaw: str = "",
    clear: bool = False,
    epoch: bytes = b"",
) -> ReceivedFrame:
    batch = Batch(clock, [AllBlocksCleared()] if clear else [], None)
    fingerprint = life * LIFE + sequence + (500 if flaw else 0)
    return ReceivedFrame(sequence, fingerprint, batch, 10, flaw, epoch)


def clears(frame: ReceivedFrame) -> bool:
    return frame.batch is not None and bool(frame.batch.events)


class Stream(RuleBasedStateMachine):
    """An engine, its replay buffer, and one sequencer that follows it."""

    @initialize(
        can_replay=st.booleans(),
        buffered=st.sampled_from([3, 1000]),
        room=st.booleans(),
        has_epochs=st.booleans(),
        beats_with_next=st.booleans(),
    )
    def begin(
        self, can_replay: bool, buffered: int, room: bool, has_epochs: bool, beats_with_next: bool
    ) -> None:
        self.life = 1
        self.has_epochs = has_epochs
        self.beats_with_next = beats_with_next
        self.clock = 0.0
        self.frames: list[ReceivedFrame] = []
        self.former: list[ReceivedFrame] = []
        self.wire: list[ReceivedFrame] = []
        self.buffered = buffered
        self.trust = Trust()
        self.budget = Budget(10_000 if room else 30)
        self.sequencer = FrameSequencer(self.budget, can_replay=can_replay)
        self.applied: list[ReceivedFrame] = []
        self.ask: ReplayRequest | None = None
        self.answer: list[ReceivedFrame] = []
        self.lives: dict[int, int] = {}
        self.faults = 0

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Apply():
                    if clears(action.frame):
                        self.applied.clear()
                        self.trust.follow(GpuCleared())
                    self.applied.append(action.frame)
                case EngineRestarted() | StartOver():
                    self.applied.clear()
                case ReplayRequest():
                    self.ask = action
                    self.answer = [
                        frame
                        for frame in self.frames[-self.buffered :]
                        if frame.sequence >= action.start
                    ]
                case _:
                    self.trust.follow(action)

    # The engine

    @property
    def epoch(self) -> bytes:
        return bytes([self.life]) * 16 if self.has_epochs else b""

    @rule(count=st.integers(1, 4), clear=st.sampled_from([False, False, False, True]))
    def publish(self, count: int, clear: bool = False) -> None:
        """With `clear`, the first frame says that the engine has dropped everything."""
        for index in range(count):
            self.clock += 1
            frame = arrival(
                self.life,
                len(self.frames),
                self.clock,
                clear=clear and not index,
                epoch=self.epoch,
            )
            self.frames.append(frame)
            self.wire.append(frame)

    @precondition(lambda self: not self.wire)
    @rule()
    def heartbeat(self) -> None:
        """It says the number of its newest frame, or of the next."""
        sequence = len(self.frames) - (not self.beats_with_next)
        if sequence >= 0:
            self.perform(self.sequencer.on_heartbeat(sequence, self.epoch))

    @rule(delivered=st.booleans(), count=st.integers(0, 12), seen=st.booleans())
    def restart(self, delivered: bool, count: int, seen: bool) -> None:
        """The new engine may get past the old one's number before we hear of it.

        seen: whether the new connection is; if frames say their epoch it need not be.
        """
        if delivered:
            self.deliver_all()
        self.life += 1
        self.clock += 1
        self.former, self.frames = self.frames, []
        self.publish(count)
        self.wire.clear()
        if seen or not self.has_epochs:
            self.perform(self.sequencer.on_connection_changed("reconnected"))

    @rule()
    def reconnect(self) -> None:
        self.wire.clear()
        self.perform(self.sequencer.on_connection_changed("reconnected"))

    # The network

    @precondition(lambda self: self.wire)
    @rule()
    def deliver(self) -> None:
        self.perform(self.sequencer.on_live_frame(self.wire.pop(0)))

    @rule()
    def deliver_all(self) -> None:
        while self.wire:
            self.deliver()

    @precondition(lambda self: self.wire)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self.wire.pop(data.draw(st.integers(0, len(self.wire) - 1)))

    @precondition(lambda self: self.wire)
    @rule(data=st.data())
    def reorder(self, data: st.DataObject) -> None:
        frame = self.wire.pop(0)
        self.wire.insert(data.draw(st.integers(0, len(self.wire))), frame)

    @precondition(lambda self: self.wire)
    @rule()
    def damage(self) -> None:
        frame = self.wire.pop(0)
        self.perform(
            self.sequencer.on_live_frame(
                arrival(
                    frame.fingerprint // LIFE,
                    frame.sequence,
                    self.clock,
                    "broken",
                    clears(frame),
                    frame.epoch,
                )
            )
        )

    @precondition(lambda self: self.applied)
    @rule(data=st.data(), flaw=st.sampled_from(["", "broken"]))
    def duplicate(self, data: st.DataObject, flaw: str) -> None:
        if self.applied[-1].fingerprint // LIFE == self.life and self.frames:
            index = data.draw(st.integers(0, len(self.frames) - 1))
            old = self.frames[index]
            self.perform(
                self.sequencer.on_live_frame(
                    arrival(self.life, old.sequence, old.timestamp, flaw, clears(old), old.epoch)
                )
            )

    @precondition(lambda self: self.has_epochs and self.former)
    @rule(data=st.data())
    def overtake(self, data: st.DataObject) -> None:
        """A frame of the former life comes after some of the present one, or before them."""
        self.perform(self.sequencer.on_live_frame(data.draw(st.sampled_from(self.former))))

    # Replays

    @precondition(lambda self: self.ask is not None)
    @rule(count=st.integers(1, 5))
    def answer_some(self, count: int) -> None:
        ask = self.ask
        for _ in range(count):
            if self.answer and ask is self.ask and ask is not None:
                self.perform(self.sequencer.on_replayed_frame(ask, self.answer.pop(0)))

    @precondition(lambda self: self.ask is not None)
    @rule()
    def lose_some_of_the_answer(self) -> None:
        del self.answer[1:3]

    @precondition(lambda self: self.ask is not None)
    @rule(complete=st.booleans())
    def end_answer(self, complete: bool) -> None:
        ask, self.ask = self.ask, None
        assert ask is not None
        if not self.sequencer.can_replay:
            self.perform(self.sequencer.on_replay_finished(ask, complete=False))
            return
        while complete and self.answer and self.ask is None:
            self.perform(self.sequencer.on_replayed_frame(ask, self.answer.pop(0)))
        self.perform(self.sequencer.on_replay_finished(ask, complete=complete))

    @rule(rebuild=st.booleans())
    def poll(self, rebuild: bool) -> None:
        self.perform(self.sequencer.on_poll(rebuild=rebuild and self.trust.recoverable))

    @rule()
    def resync(self) -> None:
        self.perform(self.sequencer.on_resync())

    # What must hold

    @invariant()
    def nothing_is_certain_that_is_not_so(self) -> None:
        if self.trust.state not in (TrustState.EXACT, TrustState.PARTIAL):
            return
        # A damaged clear that was believed has had its say, but what came after it is lost.
        assert not any(frame.decode_error for frame in self.applied)
        assert len({frame.fingerprint // LIFE for frame in self.applied}) <= 1, self.applied
        numbers = [frame.sequence for frame in self.applied]
        assert numbers == list(range(self.sequencer.incarnation.last + 1))[-len(numbers) or 10**9 :]
        if self.trust.state is TrustState.EXACT:
            first = 0 if not self.applied or not clears(self.applied[0]) else numbers[0]
            assert len(numbers) == self.sequencer.incarnation.last + 1 - first

    def teardown(self) -> None:
        """With a replay that has it all, every story ends well."""
        if not self.sequencer.can_replay or self.buffered < 1000:
            return
        self.deliver_all()
        self.perform(self.sequencer.on_connection_changed("reconnected"))
        for _ in range(12):
            if self.ask is None:
                self.perform(self.sequencer.on_poll(rebuild=self.trust.recoverable))
            if self.ask is not None:
                self.end_answer(complete=True)
        assert self.trust.state is TrustState.EXACT, (self.trust.state, self.trust.reason)
        since_clear = next(
            (at for at in reversed(range(len(self.frames))) if clears(self.frames[at])), 0
        )
        assert [frame.fingerprint for frame in self.applied] == [
            frame.fingerprint for frame in self.frames[since_clear:]
        ]
        assert self.budget.used == 0


TestSequencer = Stream.TestCase
TestSequencer.settings = settings(max_examples=150, stateful_step_count=40)


def test_frames_of_two_epochs_that_wait_together_are_not_applied_together() -> None:
    story = Stream()
    story.begin(can_replay=True, buffered=3, room=False, has_epochs=True, beats_with_next=False)
    story.reconnect()
    story.restart(delivered=False, count=2, seen=False)
    story.restart(delivered=False, count=1, seen=False)
    story.perform(story.sequencer.on_live_frame(story.former[1]))
    story.end_answer(complete=False)
    story.end_answer(complete=True)
    story.nothing_is_certain_that_is_not_so()
    assert [frame.fingerprint // LIFE for frame in story.applied] == [3]
