"""The take-over loop: what fails is tried again, and holds up no other worker."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from indexer import Worker
from kvevents import Source
from service.replication.handover.ownership_requests import OwnershipRequests
from service.replication.handover.takeover import TakeoverLoop
from service.replication.handover.waiting import WaitingOwners
from service.replication.membership import Membership
from service.replication.store_failures import StoreFailures
from store import Layout, StoreError, Takeover

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = Source("tcp://127.0.0.1:1")
ONE, TWO = Worker("a:1", 0), Worker("b:1", 0)


class Ownership:
    """Acquires everything, and fails as often as it is told."""

    def __init__(self, failing: dict[str, int]) -> None:
        self.failing = failing
        self.owned: dict[Worker, Any] = {}
        self.on_acquire: Callable[[], object] = lambda: None
        self.released: list[Worker] = []

    def _fail(self, what: str) -> None:
        if self.failing.get(what, 0):
            self.failing[what] -= 1
            raise StoreError("timeout", what)

    async def acquire(self, worker: Worker, *_: object) -> Takeover:
        self._fail(f"acquire {worker.pod}")
        self.owned[worker] = worker
        self.on_acquire()
        return Takeover(None)

    async def release(self, worker: Worker, stop_stream: Any) -> bool:
        self._fail("release")
        stop_stream()
        del self.owned[worker]
        self.released.append(worker)
        return True


class Router:
    """Knows which workers have streams."""

    def __init__(self) -> None:
        self.streams: dict[Worker, object] = {}

    def on_acquired(self, worker: Worker, *_: object) -> None:
        self.streams[worker] = worker

    def release(self, worker: Worker) -> None:
        self.streams.pop(worker, None)


def run(
    ownership: Ownership,
    router: Router,
    done: Callable[[], bool],
    on_acquire: Callable[[OwnershipRequests], object] = lambda _: None,
) -> StoreFailures:
    """Wants two workers, and works them off until it is done."""
    failures = StoreFailures()

    async def main() -> None:
        store: Any = SimpleNamespace(server=None, layout=Layout("kvatlas", 1))
        membership = Membership(store, "a", 1.0, failures)
        requests = OwnershipRequests(membership)
        ownership.on_acquire = lambda: on_acquire(requests)
        parts: Any = (
            *(requests, router, membership, store, SimpleNamespace(owned=ownership.owned)),
            *(SimpleNamespace(), ownership, failures, WaitingOwners(store, "a#1")),
        )
        for worker in (ONE, TWO):
            requests.owner_of(worker, "m", SOURCE)
        loop = asyncio.create_task(TakeoverLoop(*parts).run())
        async with asyncio.timeout(10):
            while not done():
                await asyncio.to_thread(lambda: None)
        assert not loop.done()
        loop.cancel()
        await asyncio.wait([loop])

    asyncio.run(main())
    return failures


def test_a_worker_that_cannot_be_acquired_is_tried_again() -> None:
    router, ownership = Router(), Ownership({"acquire a:1": 3})
    failures = run(ownership, router, lambda: len(router.streams) == 2)
    assert set(router.streams) == {ONE, TWO}
    assert failures.counts == {"timeout": 3}


def test_a_worker_acquired_too_late_is_released_however_often_that_fails() -> None:
    """While it was acquired its source became another replica's, and then the store failed."""
    router, ownership = Router(), Ownership({"release": 3})
    failures = run(
        ownership,
        router,
        lambda: bool(ownership.released),
        lambda requests: requests.wanted.pop(ONE, None),
    )
    assert ownership.released == [ONE]
    assert ONE not in router.streams
    assert failures.counts == {"timeout": 3}


def test_workers_of_a_source_that_was_removed_are_released_and_wanted_no_more() -> None:
    """Its pod is gone: whoever applied events for it would do so for ever."""
    router, ownership = Router(), Ownership({})
    refused: list[Worker] = []
    run(
        ownership,
        router,
        lambda: bool(ownership.released),
        lambda requests: refused.extend(requests.on_source_removed(SOURCE)),
    )
    assert ownership.released == [ONE]
    assert refused == [ONE, TWO]
    assert not router.streams
