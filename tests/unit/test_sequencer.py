"""Single inputs of the sequencer; `property/test_sequencer_model` has the long runs."""

from __future__ import annotations

from indexer import TrustState
from kvevents.budget import Budget
from kvevents.sequencing import (
    Action,
    Apply,
    EngineRestarted,
    FrameSequencer,
    ReceivedFrame,
    ReplayRequest,
)
from kvevents.sequencing.transitions import Phase
from kvevents.trust import Downgrade
from kvevents.wire import Batch


def frame(sequence: int, epoch: bytes = b"") -> ReceivedFrame:
    return ReceivedFrame(sequence, sequence, Batch(float(sequence), [], None), 10, "", epoch)


def request_in(actions: list[Action]) -> ReplayRequest:
    (request,) = [action for action in actions if isinstance(action, ReplayRequest)]
    return request


def test_a_frame_waits_until_it_is_known_where_the_engine_starts() -> None:
    budget = Budget(10_000)
    sequencer = FrameSequencer(budget, can_replay=True)
    request = request_in(sequencer.on_poll(rebuild=False))
    sequencer.on_replay_finished(request, complete=True)  # the engine has published nothing yet
    sequencer.on_heartbeat(3, b"")
    sequencer.on_connection_changed("reconnected")
    assert sequencer.request is not None
    sequencer.on_replay_finished(sequencer.request, complete=False)
    assert not sequencer.has_started
    request = request_in(sequencer.on_live_frame(frame(1)))
    request = request_in(sequencer.on_replay_finished(request, complete=True))
    assert budget.used == frame(1).size  # it may still be the second frame of the engine
    actions = sequencer.on_replayed_frame(request, frame(0))
    actions += sequencer.on_replay_finished(request, complete=True)
    applied = [action.frame.sequence for action in actions if isinstance(action, Apply)]
    assert applied == [0, 1]
    assert budget.used == 0


def test_a_heartbeat_tells_of_a_missed_frame_unless_that_is_awaited() -> None:
    sequencer = FrameSequencer(Budget(10_000), can_replay=True)
    sequencer.on_live_frame(frame(0))
    assert not sequencer.may_have_missed(0, b"")
    assert sequencer.may_have_missed(1, b"")
    request_in(sequencer.on_heartbeat(9, b""))
    assert not sequencer.may_have_missed(9, b"")


def renumbered(sequence: int, timestamp: float) -> ReceivedFrame:
    """A frame of another engine, by its fingerprint."""
    batch = Batch(timestamp, [], None)
    return ReceivedFrame(sequence, 1_000_000 + sequence, batch, 10)


def test_an_engine_whose_clock_is_behind_is_doubted_though_its_frame_looks_late() -> None:
    sequencer = FrameSequencer(Budget(10_000), can_replay=False)
    for sequence in range(1000):
        sequencer.on_live_frame(frame(sequence))
    actions = sequencer.on_live_frame(renumbered(5, timestamp=3.5))
    assert actions == [Downgrade(TrustState.DEGRADED, "late_frame")]
    assert sequencer.counts.late == 1
    assert sequencer.phase is Phase.FOLLOWING


def test_the_replay_socket_tells_whether_a_late_frame_is_another_engines() -> None:
    sequencer = FrameSequencer(Budget(10_000), can_replay=True)
    for sequence in range(1000):
        sequencer.on_live_frame(frame(sequence))
    request = request_in(sequencer.on_live_frame(renumbered(5, timestamp=3.5)))
    assert sequencer.phase is Phase.SUSPECT
    # The new engine has published six frames: none of the former one's numbers.
    request = request_in(sequencer.on_replay_finished(request, complete=True))
    actions = sequencer.on_replayed_frame(request, renumbered(0, timestamp=0.0))
    assert any(isinstance(action, EngineRestarted) for action in actions)
    assert sequencer.counts.restarts == 1


def test_a_frame_that_was_given_up_is_only_late() -> None:
    sequencer = FrameSequencer(Budget(10_000), can_replay=False)
    sequencer.on_live_frame(frame(0))
    request = request_in(sequencer.on_live_frame(frame(5)))
    sequencer.on_replay_finished(request, complete=False)
    for sequence in range(6, 1000):
        sequencer.on_live_frame(frame(sequence))
    assert sequencer.on_live_frame(frame(3)) == []
    assert (sequencer.counts.late, sequencer.counts.missed) == (1, 4)
