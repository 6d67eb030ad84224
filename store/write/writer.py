"""Writes this replica's workers to the store: absolute values, numbered and fenced.

One round writes what has changed of every worker since the round before, in one parallel round
trip, together with how far the worker's stream has got and how far it can be trusted.

Fencing: every acquisition of a worker raises its epoch. The store refuses a write of an older
epoch, so that a replica that was taken for dead cannot overwrite its successor.

Bits in flight: on one server a write takes effect all at once or not at all. On a cluster the
worker's home has its record, and other shards have some of its bits. Each shard keeps the stamp
(epoch and revision) of the last write there, and the record lists the stamps that belong to it. A
stamp that this replica did not write means that a shard has lost something.

Generations: then everything is written again, into a new generation. The old one becomes garbage.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import structlog

from indexer import StableHolderIds
from store.errors import Failures, StoreError
from store.store import HeldBy
from store.write.batch_maker import BatchMaker
from store.write.bit_allocator import BitAllocator

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    from indexer import ReplicatedIndex, Worker
    from store.records import HandoverState
    from store.store import Acquired, Store
    from store.write.owned_worker import OwnedWorker
    from store.write.streams import Streams
    from store.write.write_batch import WriteBatch

_MAX_PENDING = 1_000_000  # changes of a worker while the store is away; one with more is rewritten
_BACKOFF_FIRST, _BACKOFF_LIMIT = 0.05, 1.0

_log = structlog.get_logger("kvatlas.store")


class Writer:
    """Writes what `index` tracks of the workers that this replica owns.

    Args:
        store: where to.
        index: where the workers' blocks are.
        replica: identity of this replica.
        streams: of this replica's workers.
        live_replicas: returns the identities of the live replicas.
        changed: set by whoever has changed a worker.
    """

    def __init__(
        self,
        store: Store,
        index: ReplicatedIndex,
        replica: str,
        streams: Streams,
        live_replicas: Callable[[], Collection[str]] = tuple,
        changed: asyncio.Event | None = None,
    ) -> None:
        self._store = store
        self._index = index
        self._replica = replica
        self._streams = streams
        self._live_replicas = live_replicas
        self._changed = changed or asyncio.Event()
        self._allocator = BitAllocator(store, index)
        self._batches = BatchMaker(store, index, streams, replica, self._is_ready, self._on_failure)
        self.owned: dict[Worker, OwnedWorker] = {}
        self.failures = Failures()
        """Failed rounds by the kind of failure."""
        self.failing = ""
        """Kind of the newest failure; empty if the last round succeeded."""
        self.rounds = 0
        self._round_done = asyncio.Condition()
        self._writing = asyncio.Lock()
        self._backoff = _BACKOFF_FIRST

    # Owned workers

    def add(self, owned: OwnedWorker, acquired: Acquired, state: HandoverState | None) -> None:
        """Write a worker from now on, which has joined the index.

        state: what its last owner left, if the index has the store's rows; None: write everything.
        """
        goes_on = state is not None and not acquired.former_generation
        owned.resume(acquired, state if goes_on else None)
        if state is not None and goes_on:
            self._index.track(owned.worker, state.holder_ids)
        else:
            self._index.track(owned.worker, StableHolderIds())
            self._index.requeue_all(owned.worker)
        self.owned[owned.worker] = owned
        self.wake()

    def remove(self, worker: Worker) -> OwnedWorker | None:
        """Stop writing a worker; return what the store has of it, None if it was not owned."""
        self._index.untrack(worker)
        return self.owned.pop(worker, None)

    def rewrite(self, worker: Worker) -> None:
        """Schedule everything of a worker to be written again, into a new generation."""
        owned = self.owned.get(worker)
        if owned is not None:
            owned.needs_rewrite = True
            self.wake()

    def write_again(self, worker: Worker) -> None:
        """Write the state of a worker's stream again, though nothing else may have changed."""
        owned = self.owned.get(worker)
        if owned is not None:
            owned.writes_requested += 1
            self.wake()

    def wake(self) -> None:
        """Start the next round: something may have changed."""
        self._changed.set()

    async def flushed(self, worker: Worker) -> None:
        """Wait until everything that has changed so far is written, or the worker is not owned."""
        async with self._round_done:
            await self._round_done.wait_for(
                lambda: worker not in self.owned or not self._has_changes(self.owned[worker])
            )

    # Rounds

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                async with self._writing:
                    await self._write_changes()
            except Exception as error:
                self._on_failure(StoreError("internal", repr(error)))
                self._changed.set()  # the loop tries again once it is restarted
                raise
            async with self._round_done:
                self._round_done.notify_all()
            if self.failing:
                self._changed.set()
                await asyncio.sleep(self._backoff * random.uniform(0.5, 1.0))  # noqa: S311
                self._backoff = min(2 * self._backoff, _BACKOFF_LIMIT)
            else:
                self._backoff = _BACKOFF_FIRST

    async def verify(self) -> None:
        """Find what the store has lost, and schedule it to be written. Raises StoreError."""
        async with self._writing:
            statuses = await self._store.shard_statuses()
            for owned in self.owned.values():
                if owned.find_losses(self._store.layout.home(owned.worker), statuses):
                    self.wake()

    async def write(self) -> bool:
        """Write what has changed, in one round; return whether it succeeded."""
        async with self._writing:
            await self._write_changes()
        return not self.failing

    async def write_all(self, owned: OwnedWorker) -> bool:
        """Write until the store has everything of a worker; return False if a round fails."""
        while self.owned.get(owned.worker) is owned and self._has_changes(owned):
            if not await self.write():
                return False
        return True

    def _has_changes(self, owned: OwnedWorker) -> bool:
        if self._index.holder_ids_of(owned.worker) is None:
            return False  # the worker has left; its removal from the store is on its way
        pending = self._index.pending_count(owned.worker)
        if pending > _MAX_PENDING:
            self._index.track(owned.worker, StableHolderIds())  # drops what is pending
            owned.needs_rewrite = True
        return (
            bool(pending)
            or owned.needs_rewrite
            or owned.in_doubt
            or owned.writes_done != owned.writes_requested
            or self._streams.trust_status(owned.worker) != owned.last_written
        )

    async def _write_changes(self) -> None:
        changed = [owned for owned in self.owned.values() if self._has_changes(owned)]
        if not changed:
            self.failing = ""  # what failed before is written by now, or another replica's
            return
        self.rounds += 1
        succeeded = True
        for owned in changed:
            try:
                if owned.needs_rewrite:
                    await self._begin_generation(owned)
                await self._allocator.allocate(owned)
            except StoreError as error:
                self._on_failure(error)
                if error.kind != "malformed":  # else it is this worker's alone
                    return
                succeeded = False
        if succeeded:
            self.failing = ""
        await self._send(await self._batches.make(changed))
        if any(self.is_owned(owned) and self._has_changes(owned) for owned in changed):
            self.wake()

    def is_owned(self, owned: OwnedWorker) -> bool:
        """Whether this replica still owns the worker, and the worker has not left."""
        is_here = self._index.holder_ids_of(owned.worker) is not None
        return is_here and self.owned.get(owned.worker) is owned

    def _is_ready(self, owned: OwnedWorker) -> bool:
        """Whether a batch can be made, which has to hold after every call of the store."""
        return (
            self.is_owned(owned) and not owned.needs_rewrite and self._allocator.is_complete(owned)
        )

    async def _begin_generation(self, owned: OwnedWorker) -> None:
        acquired = await self._store.acquire(
            owned.worker, owned.model, self._replica, self._live_replicas(), fresh=True
        )
        if not self.is_owned(owned):
            return
        if isinstance(acquired, HeldBy):
            self._on_fenced(owned)
            return
        owned.begin_generation(acquired)
        self._index.track(owned.worker, StableHolderIds())
        self._index.requeue_all(owned.worker)
        _log.info("worker_written_again", pod=owned.worker.pod, rank=owned.worker.rank)

    async def _send(self, batches: list[WriteBatch]) -> None:
        calls = [call for batch in batches for call in batch.calls]
        for batch in batches:
            batch.owned.unsettled_shards.update(batch.other_shards)
        try:
            answers = await self._store.call_all(calls)
        except StoreError as error:
            answers = [error] * len(calls)
        except BaseException:
            for batch in batches:  # what was drained from the index must not be lost
                batch.owned.in_doubt = True
                batch.requeue(self._index)
            raise
        start = 0
        for batch in batches:
            end = start + len(batch.calls)
            if self.is_owned(batch.owned):
                self._conclude(batch, answers[start], answers[start + 1 : end])
            start = end

    def _conclude(self, batch: WriteBatch, home: Any, others: list[Any]) -> None:
        by_shard = dict(zip(batch.other_shards, others, strict=True))
        outcome = batch.owned.conclude(batch.record, batch.requests, home, by_shard)
        if outcome.requeue:
            batch.requeue(self._index)
        if outcome.failure is not None:
            self._on_failure(outcome.failure)
        if outcome.fenced:
            self._on_fenced(batch.owned)

    def _on_fenced(self, owned: OwnedWorker) -> None:
        self.remove(owned.worker)
        _log.info("worker_owned_elsewhere", pod=owned.worker.pod, rank=owned.worker.rank)
        self._streams.on_fenced(owned.worker)

    def _on_failure(self, error: StoreError) -> None:
        self.failures.record(error)
        if self.failing != error.kind:
            _log.warning("store_failed", kind=error.kind, detail=str(error))
        self.failing = error.kind
