"""Single inputs of the sequencer; `property/test_sequencer_model` has the long runs."""

from __future__ import annotations

from kvevents.budget import Budget
from kvevents.sequencing import Action, Apply, FrameSequencer, ReceivedFrame, ReplayRequest
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
