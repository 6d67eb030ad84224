"""What waits for one watcher stays bounded, and the newest state of each rank is kept."""

from __future__ import annotations

from indexer import TrustState, TrustStatus, Worker
from service.watching import Change, RankChange, RankState
from service.watching.watcher import Watcher


def change(pod: str, reason: str) -> RankChange:
    status = TrustStatus(TrustState.DEGRADED, reason)
    state = RankState(Worker(pod, 0), "m", status, 0, "")
    return RankChange(Change.TRUST_CHANGED, state, 0.0)


def taken(watcher: Watcher) -> list[RankChange]:
    found = []
    while (one := watcher.take()) is not None:
        found.append(one)
    return found


def test_a_reader_that_keeps_up_gets_every_change() -> None:
    watcher = Watcher("", ())
    for number in range(1000):
        watcher.put(change("a", str(number)))
    found = taken(watcher)
    assert [each.state.status.reason for each in found if each.state] == [
        str(number) for number in range(1000)
    ]
    assert not any(each.skipped for each in found)


def test_a_slow_reader_gets_the_newest_change_of_each_rank_and_the_number_left_out() -> None:
    watcher = Watcher("", ())
    for number in range(100_000):
        watcher.put(change(f"pod{number % 10}", str(number)))
    found = taken(watcher)
    assert len(found) == 1024 + 10
    newest = {each.state.worker.pod: each for each in found if each.state}
    for pod, each in newest.items():
        assert each.state is not None
        assert each.state.status.reason == str(99_990 + int(pod[3:]))
    assert sum(each.skipped for each in found) == 100_000 - len(found)


def test_the_newest_change_of_a_rank_comes_after_the_older_ones() -> None:
    watcher = Watcher("", ())
    for number in range(5000):
        watcher.put(change("a", str(number)))
    reasons = [int(each.state.status.reason) for each in taken(watcher) if each.state]
    assert reasons == sorted(reasons)
    assert reasons[-1] == 4999


def test_ranks_that_come_and_go_without_end_do_not_take_memory_without_end() -> None:
    watcher = Watcher("", ())
    for number in range(100_000):
        watcher.put(change(f"pod{number}", "x"))
    assert len(taken(watcher)) == 1024 + 16_384
