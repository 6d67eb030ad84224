"""What replicas tell each other of routings: nothing is lost without being counted."""

from __future__ import annotations

import asyncio
from array import array
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from support.deadlines import DEADLINE_SECONDS

from indexer import MemoryIndex, Worker
from service.routing import (
    HandleUnknownError,
    OutcomeLimits,
    Promises,
    Routing,
    RoutingExchange,
    RoutingLimits,
    ScoredKeys,
)
from store import Failures, ForwardedOutcome, ForwardedRouting, RoutingEntry, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

WORKER = Worker("a:1", 0)
PROMISES = Promises([WORKER], array("I", [16]), array("I", [1]), b"\x01")


class GivenJournal:
    """A journal whose entries a test gives; None stands for a store that fails."""

    def __init__(self) -> None:
        self.given: asyncio.Queue[RoutingEntry | None] = asyncio.Queue()
        self.told: list[RoutingEntry] = []
        self.fails = False
        self.malformed = 0

    async def append(self, entry: RoutingEntry) -> None:
        if self.fails:
            raise StoreError("unreachable", "away")
        self.told.append(entry)

    async def read(self) -> list[RoutingEntry]:
        entry = await self.given.get()
        if entry is None:
            return []
        return [entry]


class Replica:
    """A replica that gives handles, and hears what others tell."""

    def __init__(self) -> None:
        limits = RoutingLimits(2**26, 60.0, 60.0, 100, OutcomeLimits(1.0, 1, 0.0))
        self.routing = Routing(MemoryIndex(2**20), limits, lambda _: None)
        self.journal = GivenJournal()
        self.failures = Failures()
        journal: Any = self.journal
        self.exchange = RoutingExchange(journal, self.routing, self.failures, lambda: [b"live"])
        self.routing.peers = self.exchange

    def handle(self, blocks: int = 4) -> bytes:
        keys = {16: array("Q", range(1, 1 + blocks))}
        return self.routing.handles.add(ScoredKeys("m", 16, keys, PROMISES, 16 * blocks))

    def hears(self, number: int, *messages: Any) -> None:
        self.journal.given.put_nowait(RoutingEntry(b"another", number, messages))

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not holds():
                self.journal.given.put_nowait(None)
                await asyncio.sleep(0)


@asynccontextmanager
async def running(replica: Replica) -> AsyncIterator[Replica]:
    tasks = [asyncio.create_task(loop()) for loop in replica.exchange.loops().values()]
    yield replica
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_what_is_told_of_a_handle_is_done_by_the_replica_that_gave_it() -> None:
    async with running(Replica()) as replica:
        handle = replica.handle()
        replica.hears(0, ForwardedRouting(handle, WORKER.pod, None, 60.0))
        replica.hears(1, ForwardedOutcome(handle, "", None, 10, {"gpu": 10}))
        await replica.until(lambda: replica.routing.outcomes.of(WORKER, "m") is not None)
        assert len(replica.routing.decisions) == 1
        (entry,) = replica.journal.told  # so that the others let its blocks be speculative, too
        assert [message.handle for message in entry.messages] == [handle]
        assert not +replica.exchange.lost


async def test_an_outcome_that_comes_before_its_routing_waits_for_it() -> None:
    async with running(Replica()) as replica:
        handle = replica.handle()
        replica.hears(0, ForwardedOutcome(handle, "", None, 10, {}))
        replica.hears(1, ForwardedRouting(handle, WORKER.pod, None, 60.0))
        await replica.until(lambda: replica.routing.outcomes.of(WORKER, "m") is not None)
        assert not +replica.exchange.lost


async def test_an_outcome_whose_routing_never_comes_is_counted() -> None:
    async with running(Replica()) as replica:
        replica.hears(0, ForwardedOutcome(replica.handle(), "", None, 10, {}))
        await replica.until(lambda: replica.exchange.lost["refused"] == 1)


async def test_entries_that_were_missed_are_counted() -> None:
    async with running(Replica()) as replica:
        for number in (5, 6, 9, 10):
            replica.hears(number)
        replica.journal.malformed = 3
        await replica.until(lambda: replica.exchange.lost["missed"] == 2)
        await replica.until(lambda: replica.exchange.lost["malformed"] == 3)


async def test_what_the_store_does_not_take_is_counted() -> None:
    async with running(Replica()) as replica:
        replica.journal.fails = True
        replica.routing.record(replica.handle(), WORKER.pod, None, 60.0)
        await replica.until(lambda: replica.exchange.lost["store_failed"] == 1)
        assert replica.failures == {"unreachable": 1}


def test_what_waits_to_be_told_is_bounded() -> None:
    replica = Replica()
    for _ in range(200):
        replica.routing.record(replica.handle(8192), WORKER.pod, None, 60.0)
        if replica.exchange.lost["outbox_full"]:
            break
    assert replica.exchange.lost["outbox_full"] == 1
    assert replica.exchange._waiting_bytes <= 4 * 1024**2


def test_a_handle_of_no_live_replica_is_unknown() -> None:
    replica = Replica()
    replica.routing.record(b"live" + bytes(12), WORKER.pod, None, 60.0)
    with pytest.raises(HandleUnknownError):
        replica.routing.record(b"gone" + bytes(12), WORKER.pod, None, 60.0)
    with pytest.raises(HandleUnknownError):
        replica.routing.report(b"gone" + bytes(12), "", None, 1, {})
