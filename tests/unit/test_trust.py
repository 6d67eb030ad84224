"""The states of trust, by example: each line of the table in `kvevents.trust`."""

from __future__ import annotations

from kvevents.trust import ClassesInUse, State, TierClass, Trust, class_of


def standing(trust: Trust) -> tuple[State, str]:
    return trust.state, trust.reason


def gpu_only() -> Trust:
    """A worker whose model has shown that only GPUs hold its blocks."""
    trust = Trust()
    trust.classes.stored_on_gpu(16)
    return trust


def test_nothing_is_known_of_who_was_never_heard() -> None:
    assert standing(Trust()) == (State.UNKNOWN, "never_heard")


def test_who_is_heard_from_the_first_frame_is_exact() -> None:
    trust = Trust()
    trust.begin()
    assert standing(trust) == (State.EXACT, "")


def test_storage_may_be_older_than_the_engine() -> None:
    trust = Trust()
    trust.begin()
    trust.classes.use(class_of("disk"))
    assert standing(trust) == (State.PARTIAL, "storage_from_before")


def test_who_is_joined_late_is_partial_until_the_gpu_is_cleared() -> None:
    trust = gpu_only()
    trust.join_late("joined_late", mendable=True)
    assert standing(trust) == (State.PARTIAL, "joined_late")
    trust.cleared()
    assert standing(trust) == (State.EXACT, "")


def test_a_reset_of_the_gpu_says_nothing_of_the_hosts_memory() -> None:
    trust = Trust()
    trust.join_late("joined_late", mendable=True)
    trust.cleared()
    assert trust.state is State.PARTIAL  # an offload tier may be there, and not have been named yet
    trust.classes.use(TierClass.MEMORY)
    trust.classes.stored_on_gpu(16)
    assert trust.state is State.PARTIAL


def test_a_loss_is_worse_than_a_late_start_and_stays_the_reason() -> None:
    trust = gpu_only()
    trust.join_late("joined_late", mendable=True)
    trust.doubt(State.DEGRADED, "frames_lost")
    trust.doubt(State.PARTIAL, "evicted")
    trust.doubt(State.DEGRADED, "broken_event")
    assert standing(trust) == (State.DEGRADED, "frames_lost")
    assert trust.mendable


def test_what_is_not_in_use_does_not_count() -> None:
    trust = gpu_only()
    trust.begin()
    trust.doubt(State.DEGRADED, "frames_lost", [TierClass.MEMORY])
    assert trust.state is State.EXACT
    trust.classes.use(TierClass.MEMORY)
    assert standing(trust) == (State.DEGRADED, "frames_lost")


def test_a_class_that_one_worker_uses_counts_for_all_of_the_model() -> None:
    classes = ClassesInUse()
    classes.stored_on_gpu(16)
    one, other = Trust(classes), Trust(classes)
    for trust in (one, other):
        trust.join_late("joined_late", mendable=True)
        trust.cleared()
        assert trust.state is State.EXACT
    classes.use(TierClass.MEMORY)
    assert one.state is other.state is State.PARTIAL


def test_a_worker_that_has_left_is_told_nothing_more() -> None:
    classes = ClassesInUse()
    classes.stored_on_gpu(16)
    one, other = Trust(classes), Trust(classes)
    for trust in (one, other):
        trust.join_late("joined_late", mendable=True)
        trust.cleared()
    classes.leave(other)
    classes.use(TierClass.MEMORY)
    assert one.state is State.PARTIAL
    assert other.state is State.EXACT


def test_a_new_engine_has_empty_memories_but_its_storage_is_in_doubt() -> None:
    trust = gpu_only()
    trust.join_late("joined_late", mendable=True)
    trust.doubt(State.DEGRADED, "frames_lost")
    trust.restart()
    assert standing(trust) == (State.EXACT, "")
    trust.classes.use(TierClass.STORAGE)
    assert standing(trust) == (State.DEGRADED, "restarted")


def test_what_is_not_claimed_any_more_cannot_be_wrong() -> None:
    trust = gpu_only()
    trust.begin()
    trust.doubt(State.DEGRADED, "frames_lost")
    assert trust.degraded_classes == list(TierClass)
    trust.forgotten()
    assert standing(trust) == (State.PARTIAL, "frames_lost")
    assert trust.degraded_classes == []


def test_whoever_waits_for_a_replay_is_recovering_whatever_else_is_said() -> None:
    trust = Trust()
    trust.wait("gap")
    assert standing(trust) == (State.RECOVERING, "gap")
    trust.waited()
    assert standing(trust) == (State.UNKNOWN, "never_heard")
    trust.begin()
    trust.wait("gap")
    trust.doubt(State.DEGRADED, "frames_lost")
    assert standing(trust) == (State.RECOVERING, "gap")
    trust.waited()
    assert trust.state is State.DEGRADED


def test_blocks_that_wait_for_their_parents_leave_a_worker_partial() -> None:
    trust = gpu_only()
    trust.begin()
    trust.orphaned(waiting=True)
    assert standing(trust) == (State.PARTIAL, "orphans")
    trust.orphaned(waiting=False)
    assert trust.state is State.EXACT


def test_another_engine_of_which_nothing_was_heard_is_unknown() -> None:
    trust = gpu_only()
    trust.begin()
    trust.unheard()
    assert standing(trust) == (State.UNKNOWN, "never_heard")
    assert not trust.is_exact(TierClass.GPU)
    trust.heard()
    assert trust.state is State.EXACT


def test_doubts_survive_a_snapshot() -> None:
    trust = gpu_only()
    trust.begin()
    trust.doubt(State.DEGRADED, "frames_lost", [TierClass.GPU], mendable=False)
    again = gpu_only()
    again.load(trust.dump())
    assert standing(again) == standing(trust)
    assert again.mendable == trust.mendable
