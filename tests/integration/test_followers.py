"""Workers change hands behind somebody's back."""

from __future__ import annotations

import asyncio
from array import array
from typing import TYPE_CHECKING, Any

import pytest
from support.deadlines import DEADLINE_SECONDS
from support.given_keys import GivenKeys
from support.naive.index import CHAIN, MODELS, WORKERS
from support.stores.replicated import ReplicatedIndexes
from support.stores.servers import server_program, store_process

from indexer import Place, ReplicatedIndex
from store import Follower, Store, StoreError
from store.records import JournalEntry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from indexer import Worker
    from store.records import ShardStatus
    from store.scripts import Script

WORKER = WORKERS[0]


@pytest.fixture
def subject() -> Iterator[ReplicatedIndexes]:
    if server_program("redis") is None:
        pytest.skip("there is no redis-server on this machine")
    with store_process("redis") as process:
        subject = ReplicatedIndexes(process.url, "successions", count_copies=True)
        yield subject
        subject.close()


def test_a_follower_that_missed_journal_entries_loads_the_worker_again(
    subject: ReplicatedIndexes,
) -> None:
    """One is taken for dead, reads of its own succession, and then gives up what it never lost."""
    one, two = subject.replicas
    subject.join(WORKER, MODELS[WORKER.pod])
    one.index.store(WORKER, Place("gpu"), array("Q", [1]), array("Q", CHAIN[:1]))
    subject.settle()

    async def main() -> None:
        await two.take(WORKER, ["two"])
        two.index.store(WORKER, Place("gpu"), array("Q", [2]), array("Q", CHAIN[1:2]))
        await two.write_all()
        async with asyncio.timeout(DEADLINE_SECONDS):
            for _ in range(2):  # the second began after the entries were written
                await one.copy.wait_for_progress()
            assert WORKER in one.writer.owned
            assert await one.succession.release(WORKER, lambda: None)
            while not one.is_as(two):
                await one.copy.refresh()

    subject.run(main())
    for match in subject.ask(MODELS[WORKER.pod], array("Q", CHAIN[:2])):
        best = match.best_of(WORKER.pod)
        assert best is not None
        assert best.matched_blocks == 2


class Flaky(Store):
    """Does not answer the first time that a worker is to be read, or that it was asked again."""

    def __init__(self, store: Store, *failing: str) -> None:
        super().__init__(store.server, store.layout.namespace)
        self.failing = list(failing)

    async def call(self, script: Script, shard: int) -> Any:
        self._fail_if(script.file)
        return await super().call(script, shard)

    async def handover_state(self, worker: Worker) -> bytes:
        self._fail_if("handover_state")
        return await super().handover_state(worker)

    async def shard_statuses(self) -> list[ShardStatus]:
        self._fail_if("shard_statuses")
        return await super().shard_statuses()

    def _fail_if(self, script: str) -> None:
        if script in self.failing:
            self.failing.remove(script)
            raise StoreError("timeout", script)


@pytest.mark.parametrize("failing", ["read_pages", "handover_state", "shard_statuses"])
def test_a_follower_never_takes_a_half_read_worker_for_the_whole(
    subject: ReplicatedIndexes, failing: str
) -> None:
    one, _ = subject.replicas
    subject.join(WORKER, MODELS[WORKER.pod])
    for block in range(3):
        one.index.store(WORKER, Place("gpu"), array("Q", [block]), array("Q", CHAIN[block:][:1]))
        subject.settle()

    async def main() -> None:
        key = subject.store.layout.prefix(0) + "journal"
        found = await subject.store.server.read_journal(key, b"0", 100, 1.0)
        *_, before, last = [JournalEntry.unpack(blob) for _, blob in found]
        index = ReplicatedIndex(2**20)
        copy = Follower(Flaky(subject.store, failing), index, with_blocks=True)
        with pytest.raises(StoreError):
            await copy._apply(before)
        for entry in (before, last):
            assert copy.workers.remote[WORKER].loading
            await copy._apply(entry)
        best = index.match(MODELS[WORKER.pod], GivenKeys(CHAIN[:3])).best_of(WORKER.pod)
        assert best is not None
        assert not copy.workers.remote[WORKER].loading
        assert best.matched_blocks == 3

    subject.run(main())
