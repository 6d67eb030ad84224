"""The states of trust, by example: each line of the table in `kvevents.trust.trust`."""

from __future__ import annotations

from indexer import TrustState
from kvevents.trust import (
    BeginRecovery,
    Downgrade,
    EndRecovery,
    GpuCleared,
    HeardFromStart,
    JoinedLate,
    NeverHeard,
    OrphansChanged,
    Restarted,
    StartedEmpty,
)
from kvevents.trust.trust import ClassesInUse, Trust
from kvevents.wire import TierClass, class_of


def standing(trust: Trust) -> tuple[TrustState, str]:
    return trust.state, trust.reason


def gpu_only() -> Trust:
    """A worker whose model has shown that only GPUs hold its blocks."""
    trust = Trust()
    trust.classes.count_gpu_stores(16)
    return trust


def test_a_worker_that_was_never_heard_is_unknown() -> None:
    assert standing(Trust()) == (TrustState.UNKNOWN, "never_heard")


def test_a_worker_that_is_heard_from_the_first_frame_is_exact() -> None:
    trust = Trust()
    trust.follow(StartedEmpty())
    assert standing(trust) == (TrustState.EXACT, "")


def test_a_worker_whose_storage_may_be_older_than_its_engine_is_partial() -> None:
    trust = Trust()
    trust.follow(StartedEmpty())
    trust.classes.add(class_of("disk"))
    assert standing(trust) == (TrustState.PARTIAL, "storage_from_before")


def test_a_worker_that_is_joined_late_is_partial_until_its_gpu_is_cleared() -> None:
    trust = gpu_only()
    trust.follow(JoinedLate("joined_late", recoverable=True))
    assert standing(trust) == (TrustState.PARTIAL, "joined_late")
    trust.follow(GpuCleared())
    assert standing(trust) == (TrustState.EXACT, "")


def test_a_cleared_gpu_says_nothing_of_the_host_s_memory() -> None:
    trust = Trust()
    trust.follow(JoinedLate("joined_late", recoverable=True))
    trust.follow(GpuCleared())
    assert (
        trust.state is TrustState.PARTIAL
    )  # an offload tier may be there, and not have been named yet
    trust.classes.add(TierClass.MEMORY)
    trust.classes.count_gpu_stores(16)
    assert trust.state is TrustState.PARTIAL


def test_a_lost_frame_is_worse_than_a_late_start_and_stays_the_reason() -> None:
    trust = gpu_only()
    trust.follow(JoinedLate("joined_late", recoverable=True))
    trust.follow(Downgrade(TrustState.DEGRADED, "frames_lost"))
    trust.follow(Downgrade(TrustState.PARTIAL, "evicted"))
    trust.follow(Downgrade(TrustState.DEGRADED, "broken_event"))
    assert standing(trust) == (TrustState.DEGRADED, "frames_lost")
    assert trust.recoverable


def test_a_tier_class_that_is_not_in_use_does_not_count() -> None:
    trust = gpu_only()
    trust.follow(StartedEmpty())
    trust.follow(Downgrade(TrustState.DEGRADED, "frames_lost", [TierClass.MEMORY]))
    assert trust.state is TrustState.EXACT
    trust.classes.add(TierClass.MEMORY)
    assert standing(trust) == (TrustState.DEGRADED, "frames_lost")


def test_a_tier_class_that_one_worker_uses_counts_for_all_workers_of_the_model() -> None:
    classes = ClassesInUse()
    classes.count_gpu_stores(16)
    one, other = Trust(classes), Trust(classes)
    for trust in (one, other):
        trust.follow(JoinedLate("joined_late", recoverable=True))
        trust.follow(GpuCleared())
        assert trust.state is TrustState.EXACT
    classes.add(TierClass.MEMORY)
    assert one.state is other.state is TrustState.PARTIAL


def test_a_worker_that_has_left_is_not_notified_any_more() -> None:
    classes = ClassesInUse()
    classes.count_gpu_stores(16)
    one, other = Trust(classes), Trust(classes)
    for trust in (one, other):
        trust.follow(JoinedLate("joined_late", recoverable=True))
        trust.follow(GpuCleared())
    classes.unsubscribe(other)
    classes.add(TierClass.MEMORY)
    assert one.state is TrustState.PARTIAL
    assert other.state is TrustState.EXACT


def test_a_restarted_engine_has_empty_memory_but_its_storage_is_in_doubt() -> None:
    trust = gpu_only()
    trust.follow(JoinedLate("joined_late", recoverable=True))
    trust.follow(Downgrade(TrustState.DEGRADED, "frames_lost"))
    trust.follow(Restarted())
    assert standing(trust) == (TrustState.EXACT, "")
    trust.classes.add(TierClass.STORAGE)
    assert standing(trust) == (TrustState.DEGRADED, "restarted")


def test_blocks_that_are_not_claimed_any_more_leave_no_doubt() -> None:
    trust = gpu_only()
    trust.follow(StartedEmpty())
    trust.follow(Downgrade(TrustState.DEGRADED, "frames_lost"))
    assert trust.degraded_classes == list(TierClass)
    trust.on_degraded_dropped()
    assert standing(trust) == (TrustState.PARTIAL, "frames_lost")
    assert trust.degraded_classes == []


def test_a_worker_that_waits_for_a_replay_is_recovering_whatever_else_is_known() -> None:
    trust = Trust()
    trust.follow(BeginRecovery("gap"))
    assert standing(trust) == (TrustState.RECOVERING, "gap")
    trust.follow(EndRecovery())
    assert standing(trust) == (TrustState.UNKNOWN, "never_heard")
    trust.follow(StartedEmpty())
    trust.follow(BeginRecovery("gap"))
    trust.follow(Downgrade(TrustState.DEGRADED, "frames_lost"))
    assert standing(trust) == (TrustState.RECOVERING, "gap")
    trust.follow(EndRecovery())
    assert trust.state is TrustState.DEGRADED


def test_blocks_that_wait_for_their_parents_leave_a_worker_partial() -> None:
    trust = gpu_only()
    trust.follow(StartedEmpty())
    trust.follow(OrphansChanged(waiting=True))
    assert standing(trust) == (TrustState.PARTIAL, "orphans")
    trust.follow(OrphansChanged(waiting=False))
    assert trust.state is TrustState.EXACT


def test_a_restarted_engine_that_was_not_heard_yet_is_unknown() -> None:
    trust = gpu_only()
    trust.follow(StartedEmpty())
    trust.follow(NeverHeard())
    assert standing(trust) == (TrustState.UNKNOWN, "never_heard")
    assert not trust.is_exact(TierClass.GPU)
    trust.follow(HeardFromStart())
    assert trust.state is TrustState.EXACT


def test_doubts_of_a_worker_survive_a_snapshot() -> None:
    trust = gpu_only()
    trust.follow(StartedEmpty())
    trust.follow(Downgrade(TrustState.DEGRADED, "frames_lost", [TierClass.GPU], recoverable=False))
    again = gpu_only()
    again.load(trust.dump())
    assert standing(again) == standing(trust)
    assert again.recoverable == trust.recoverable
