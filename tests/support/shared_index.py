"""Two replicas of an index that share a store, without any events: what the service does of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from indexer import ReplicatedIndex, TrustState, TrustStatus, model_scope
from store import (
    Follower,
    GarbageCollector,
    Lookup,
    Server,
    Store,
    WorkerOwnership,
    Writer,
    parse_address,
)
from support.given_keys import GivenKeys
from support.naive_index import MODELS, WEIGHTS

if TYPE_CHECKING:
    from array import array
    from collections.abc import Coroutine

    from indexer import MemoryIndex, PrefixMatch, Worker

PATIENCE = 20.0


class Replica:
    """One of several; see `store` for its parts. It says that it is as far as it has counted."""

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
        self.succession.on_lost(worker)

    async def write_all(self) -> None:
        """Until the store has everything, whatever has befallen it."""
        async with asyncio.timeout(PATIENCE):
            for of in list(self.writer.owned.values()):
                while not await self.writer.write_all(of):
                    pass

    async def take(self, worker: Worker, live: list[str]) -> None:
        taken = await self.succession.acquire(worker, MODELS[worker.pod], "tcp://x:1", live)
        assert not isinstance(taken, str), taken
        if taken.dump is not None:
            self.steps[worker] = taken.dump["steps"]

    async def follows(self, other: Replica) -> None:
        """Wait until what `other` has written is here."""
        async with asyncio.timeout(PATIENCE):
            while not self.is_as(other):
                await self.store.heartbeat("", 1.0)  # lets the copy's tasks go on

    def is_as(self, other: Replica) -> bool:
        return set(self.copy.remote_workers) == set(other.writer.owned) and all(
            self.copy.has_revision(of.worker, of.generation, of.revision)
            for of in other.writer.owned.values()
        )


class SharedSubject:
    """An index as two replicas have it, the first of which owns every worker at first."""

    def __init__(self, url: str, namespace: str, count_copies: bool) -> None:
        self._runner = asyncio.Runner()
        self.run(self._start(url, namespace, count_copies))

    def run(self, doing: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(doing)

    async def _start(self, url: str, namespace: str, count_copies: bool) -> None:
        self._server = await Server(parse_address(url)).__aenter__()
        store = Store(self._server, namespace)
        await store.register_layout()
        self.store = store
        self.replicas = [Replica(name, store, count_copies) for name in ("one", "two")]
        self.owner: dict[Worker, Replica] = {}

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
        """Where the worker's events are applied."""
        replica = self.owner[worker]
        replica.steps[worker] = (replica.steps.get(worker) or 0) + 1
        return replica.index

    def leave(self, worker: Worker) -> bool:
        replica = self.owner.get(worker)
        if replica is None:
            return False
        return bool(self.run(self._leave(worker, replica)))

    async def _leave(self, worker: Worker, replica: Replica) -> bool:
        of = replica.writer.remove(worker)
        assert of is not None
        replica.copy.own_workers.discard(worker)
        left = replica.index.leave(worker)
        assert await self.store.remove_worker(worker, of.epoch) == left
        del self.owner[worker]
        return left

    # What becomes of it

    def settle(self) -> None:
        """All that was done is known to everybody."""
        self.run(self._settle())

    async def _settle(self) -> None:
        one, two = self.replicas
        for replica in self.replicas:
            await replica.writer.verify()
            await replica.write_all()
        await one.follows(two)
        await two.follows(one)

    def hand_over(self, worker: Worker) -> None:
        """In good order."""
        self.run(self._hand_over(worker, released=True))

    def take_over(self, worker: Worker) -> None:
        """From a replica that is taken for dead, and finds out later."""
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
        """Nothing is left of what nobody needs."""
        self.run(self._clean())

    async def _clean(self) -> None:
        await self._settle()
        for replica in self.replicas:
            writing = asyncio.create_task(replica.writer.run())
            for of in list(replica.writer.owned.values()):
                await replica.cleaner.collect_worker(of)
                assert not of.retired_bits
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        for bulletin in await self.store.shard_statuses():
            for garbage in bulletin.garbage:
                await self.replicas[0].cleaner.collect(garbage)

    def ask(self, model: str, keys: array[int]) -> list[PrefixMatch]:
        """The same question, to everybody."""
        found = self.run(self.replicas[0].lookup.match(model, model_scope(model), GivenKeys(keys)))
        assert not found.in_flight
        in_memory: list[PrefixMatch] = [
            replica.index.match(model, GivenKeys(keys)) for replica in self.replicas
        ]
        return [*in_memory, found.match]
