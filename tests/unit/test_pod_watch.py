"""Changes of ranks are found and told, to several watchers, however slowly they read."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from support.deadlines import DEADLINE_SECONDS

from indexer import TrustState, TrustStatus, Worker
from service.watching import Change, PodWatch, TooManyWatchersError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from service.watching import RankChange

EXACT = TrustStatus(TrustState.EXACT, "", 0.0, 1)
LOST = TrustStatus(TrustState.DEGRADED, "frames_lost", 0.0, 9)


class FakeFleet:
    """Workers whose states a test sets; both a `Replica` and its `Workers`."""

    def __init__(self) -> None:
        self.states: dict[Worker, TrustStatus] = {}
        self.numbers: dict[Worker, int] = {}
        self.owners: dict[Worker, str] = {}
        self.workers = self
        self.trust_watchers: list[Any] = []
        self.streams: dict[Worker, Any] = {}
        self.listener = SimpleNamespace(router=self)

    def set(self, pod: str, status: TrustStatus, *, restarts: int = 0, owner: str = "") -> None:
        worker = Worker(pod, 0)
        self.states[worker], self.numbers[worker], self.owners[worker] = status, restarts, owner
        self.streams[worker] = SimpleNamespace(model="m")

    def models(self) -> Iterator[tuple[Worker, str]]:
        return iter([(worker, "m") for worker in self.states])

    def trust_status(self, worker: Worker, now: float) -> TrustStatus:
        return self.states[worker]

    def restarts(self, worker: Worker) -> int:
        return self.numbers[worker]

    def owner(self, worker: Worker) -> str:
        return self.owners[worker]


@pytest.fixture
def fleet() -> FakeFleet:
    return FakeFleet()


@pytest.fixture
def watch(fleet: FakeFleet) -> PodWatch:
    return PodWatch(cast("Any", fleet))


async def told(changes: AsyncIterator[RankChange]) -> tuple[Change, str]:
    async with asyncio.timeout(DEADLINE_SECONDS):
        change = await anext(changes)
    return change.change, change.state.worker.pod if change.state else ""


async def test_each_change_is_told_by_what_has_happened(fleet: FakeFleet, watch: PodWatch) -> None:
    fleet.set("a", EXACT)
    with watch.watching() as changes:
        assert [await told(changes), await told(changes)] == [
            (Change.LISTED, "a"),
            (Change.LIST_COMPLETE, ""),
        ]
        fleet.set("b", EXACT)
        assert await told(changes) == (Change.APPEARED, "b")
        fleet.set("b", LOST)
        assert await told(changes) == (Change.TRUST_CHANGED, "b")
        fleet.set("b", LOST, owner="replica-2")
        assert await told(changes) == (Change.OWNER_CHANGED, "b")
        fleet.set("b", EXACT, owner="replica-2", restarts=1)
        assert await told(changes) == (Change.RESTARTED, "b")
        del fleet.states[Worker("a", 0)]
        assert await told(changes) == (Change.DISAPPEARED, "a")


async def test_silence_and_sequence_numbers_alone_are_no_change(
    fleet: FakeFleet, watch: PodWatch
) -> None:
    fleet.set("a", EXACT)
    with watch.watching() as changes:
        assert [(await told(changes))[0] for _ in range(2)] == [
            *(Change.LISTED, Change.LIST_COMPLETE),
        ]
        fleet.set("a", EXACT._replace(as_of=5, silent=3.0))
        with suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                raise AssertionError(await anext(changes))


async def test_a_change_that_a_frame_causes_is_told_before_the_next_look(
    fleet: FakeFleet, watch: PodWatch
) -> None:
    fleet.set("a", EXACT)
    with watch.watching() as changes:
        await told(changes)
        await told(changes)
        for status in (LOST, EXACT, LOST):  # each lasts far less than a tenth of a second
            fleet.set("a", status)
            fleet.trust_watchers[0](Worker("a", 0))
            await asyncio.sleep(0)
            fleet.trust_watchers[0](Worker("nobody", 0))
        assert [(await told(changes))[0] for _ in range(3)] == [Change.TRUST_CHANGED] * 3


async def test_a_watcher_that_does_not_read_holds_up_nobody(
    fleet: FakeFleet, watch: PodWatch
) -> None:
    for number in range(10):
        fleet.set(f"p{number}", EXACT)
    with watch.watching() as slow, watch.watching() as fast:
        for changes in (slow, fast):
            for _ in range(11):
                await told(changes)
        for step in range(3000):
            worker = Worker(f"p{step % 10}", 0)
            fleet.set(worker.pod, LOST if step // 10 % 2 == 0 else EXACT)
            fleet.trust_watchers[0](worker)
            await asyncio.sleep(0)
            assert await told(fast) == (Change.TRUST_CHANGED, worker.pod)
        found = [await anext(slow) for _ in range(1034)]
        assert sum(change.skipped for change in found) == 3000 - 1034
        newest = {change.state.worker: change.state for change in found if change.state}
        assert {w: s.status for w, s in newest.items()} == fleet.states


async def test_a_watcher_that_leaves_makes_room(fleet: FakeFleet, watch: PodWatch) -> None:
    with watch.watching():
        for _ in range(2):
            contexts = [watch.watching() for _ in range(15)]
            for context in contexts:
                context.__enter__()
            with pytest.raises(TooManyWatchersError), watch.watching():
                pass
            for context in contexts:
                context.__exit__(None, None, None)
    assert len(watch) == 0
