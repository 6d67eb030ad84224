"""Two replicas of an index over one store: what the service makes of them, without events."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from indexer import ReplicatedIndex, TrustState, TrustStatus, model_scope
from store import (
    Follower,
    GarbageCollector,
    Lookup,
    Server,
    Store,
    Takeover,
    WorkerOwnership,
    Writer,
)
from support.deadlines import DEADLINE_SECONDS
from support.given_keys import GivenKeys
from support.naive.index import MODELS, WEIGHTS
from support.stores.servers import patient_address

if TYPE_CHECKING:
    from array import array
    from collections.abc import AsyncIterator, Coroutine

    from indexer import MemoryIndex, PrefixMatch, Worker
_namespaces = itertools.count()


class IndexReplica:
    """One replica: an index with the writer, the follower and the rest of `store` around it.

    As `as_of` of its workers it counts the steps that `ReplicatedIndexes` takes.
    """

    def __init__(self, name: str, store: Store, count_copies: bool) -> None:
        self.name = name
        self.store = store
        self.index = ReplicatedIndex(64 * 1024**2, WEIGHTS, count_copies)
        self.copy = Follower(store, self.index, with_blocks=True)
        self.writer = Writer(store, self.index, name, self)
        self.succession = WorkerOwnership(store, self.index, self.writer, self.copy, name)
        self.cleaner = GarbageCollector(store, self.index, self.writer)
        self.lookup = Lookup(store, WEIGHTS)
        self.steps: dict[Worker, int] = {}
        self.was_lost: list[Worker] = []
        self.tasks = [
            asyncio.create_task(self.copy.follow_shard(shard))
            for shard in range(store.layout.shards)
        ]

    def trust_status(self, worker: Worker) -> TrustStatus:
        return TrustStatus(TrustState.EXACT, "", as_of=self.steps.get(worker))

    def dump(self, worker: Worker) -> dict[str, Any]:
        return {"steps": self.steps.get(worker)}

    def on_fenced(self, worker: Worker) -> None:
        self.was_lost.append(worker)
        self.copy.workers.discard(worker)

    async def write_all(self) -> None:
        """Write until the store has everything."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            for owned in list(self.writer.owned.values()):
                while not await self.writer.write_all(owned):
                    pass

    async def take(self, worker: Worker, live: list[str]) -> None:
        taken = await self.succession.acquire(worker, MODELS[worker.pod], "tcp://x:1", live)
        assert isinstance(taken, Takeover), taken
        if taken.stream is not None:
            self.steps[worker] = taken.stream["steps"]

    async def follows(self, other: IndexReplica) -> None:
        """Wait until everything that `other` has written is here."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not self.is_as(other):
                await self.store.heartbeat("", 1.0)  # lets the copy's tasks go on

    def is_as(self, other: IndexReplica) -> bool:
        return set(self.copy.workers.remote) == set(other.writer.owned) and all(
            self.copy.has_revision(owned.worker, owned.generation, owned.revision)
            for owned in other.writer.owned.values()
        )


class ReplicatedIndexes:
    """Two replicas of one index; the first owns every worker until it is handed over."""

    def __init__(self, url: str, namespace: str, count_copies: bool) -> None:
        self._runner = asyncio.Runner()
        self.run(self._start(url, namespace, count_copies))

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(coroutine)

    async def _start(self, url: str, namespace: str, count_copies: bool) -> None:
        self._server = await Server(patient_address(url)).__aenter__()
        store = Store(self._server, namespace)
        await store.register_layout()
        self.store = store
        self.replicas = [IndexReplica(name, store, count_copies) for name in ("one", "two")]
        self.owner: dict[Worker, IndexReplica] = {}

    def close(self) -> None:
        self.run(self._stop())
        self._runner.close()

    async def _stop(self) -> None:
        for replica in self.replicas:
            for task in replica.tasks:
                task.cancel()
            await asyncio.gather(*replica.tasks, return_exceptions=True)
        await self._server.__aexit__(None, None, None)

    # The index

    def join(self, worker: Worker, model: str) -> None:
        self.run(self.replicas[0].take(worker, ["one", "two"]))
        self.owner[worker] = self.replicas[0]

    def of(self, worker: Worker) -> MemoryIndex:
        """The index of the worker's owner, where its events are applied."""
        replica = self.owner[worker]
        replica.steps[worker] = (replica.steps.get(worker) or 0) + 1
        return replica.index

    def leave(self, worker: Worker) -> bool:
        replica = self.owner.get(worker)
        if replica is None:
            return False
        return bool(self.run(self._leave(worker, replica)))

    async def _leave(self, worker: Worker, replica: IndexReplica) -> bool:
        owned = replica.writer.remove(worker)
        assert owned is not None
        replica.copy.workers.own.discard(worker)
        left = replica.index.leave(worker)
        settled = not owned.unsettled_shards
        assert await self.store.remove_worker(worker, owned.epoch, settled=settled) == left
        del self.owner[worker]
        return left

    # Replication

    def settle(self) -> None:
        """Wait until the store and both replicas have everything."""
        self.run(self._settle())

    async def _settle(self) -> None:
        one, two = self.replicas
        for replica in self.replicas:
            await replica.writer.verify()
            await replica.write_all()
        await one.follows(two)
        await two.follows(one)

    def hand_over(self, worker: Worker) -> None:
        """The owner releases the worker and the other replica acquires it."""
        self.run(self._hand_over(worker, released=True))

    def take_over(self, worker: Worker) -> None:
        """The other replica takes over; the owner counts as dead and is fenced later."""
        self.run(self._hand_over(worker, released=False))

    async def _hand_over(self, worker: Worker, *, released: bool) -> None:
        former = self.owner[worker]
        (heir,) = [replica for replica in self.replicas if replica is not former]
        if released:
            assert await former.succession.release(worker, lambda: None)
        else:
            await former.write_all()
        await heir.take(worker, [heir.name] if not released else ["one", "two"])
        assert heir.steps.get(worker) == former.steps.get(worker)
        if not released:
            former.steps[worker] = -1  # something new, which it is not to write any more
            await former.writer.write()
            assert former.was_lost.pop() == worker
        former.steps.pop(worker, None)
        self.owner[worker] = heir

    def clean(self) -> None:
        """Collect all garbage of the store."""
        self.run(self._clean())

    async def _clean(self) -> None:
        await self._settle()
        for replica in self.replicas:
            writing = asyncio.create_task(replica.writer.run())
            for owned in list(replica.writer.owned.values()):
                await replica.cleaner.collect_worker(owned)
                assert not owned.retired_bits
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        for status in await self.store.shard_statuses():
            for garbage in status.garbage:
                await self.replicas[0].cleaner.collect(garbage)

    def ask(self, model: str, keys: array[int]) -> list[PrefixMatch]:
        """The match of each replica and of the store itself."""
        found = self.run(self.replicas[0].lookup.match(model, model_scope(model), GivenKeys(keys)))
        assert not found.in_flight
        in_memory: list[PrefixMatch] = [
            replica.index.match(model, GivenKeys(keys)) for replica in self.replicas
        ]
        return [*in_memory, found.match]


@asynccontextmanager
async def index_replicas(url: str, *names: str) -> AsyncIterator[list[IndexReplica]]:
    """Replicas that share a namespace of their own, and own no worker yet."""
    async with Server(patient_address(url)) as server, AsyncExitStack() as stack:
        store = Store(server, f"replicas{next(_namespaces)}")
        await store.register_layout()
        replicas = [IndexReplica(name, store, count_copies=True) for name in names]
        for task in (task for replica in replicas for task in replica.tasks):
            stack.callback(task.cancel)
        yield replicas
