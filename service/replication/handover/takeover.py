"""Acquires the workers that this replica wants, and removes from the store those that have left.

Until a worker's owner is known, the router holds the worker's frames back. A worker is acquired
with everything that the store has of it, and only then are its frames applied.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import structlog

from kvevents import check_dump
from store import HeldBy, StoreError, decoding

if TYPE_CHECKING:
    from indexer import Worker
    from kvevents import FrameRouter, Source
    from service.replication.handover.ownership_requests import OwnershipRequests
    from service.replication.handover.waiting import WaitingOwners
    from service.replication.membership import Membership
    from service.replication.store_failures import StoreFailures
    from store import Follower, OwnedWorker, Store, Takeover, WorkerOwnership, Writer

_RETRY_SECONDS = 0.1

_log = structlog.get_logger("kvatlas.service")


class TakeoverLoop:
    """Acquires and releases workers as requested, one after the other."""

    def __init__(
        self,
        requests: OwnershipRequests,
        router: FrameRouter,
        membership: Membership,
        store: Store,
        writer: Writer,
        follower: Follower,
        ownership: WorkerOwnership,
        failures: StoreFailures,
        waiting: WaitingOwners,
    ) -> None:
        self._requests = requests
        self._router = router
        self._membership = membership
        self._store = store
        self._writer = writer
        self._follower = follower
        self._ownership = ownership
        self._failures = failures
        self._waiting = waiting
        self._to_remove: dict[Worker, OwnedWorker] = {}

    async def run(self) -> None:
        """Work requests off for ever. One that fails is tried again, and holds up no other."""
        while True:
            await self._requests.wait()
            is_done = True
            self._stop_writing_left_workers()
            for worker, owned in list(self._to_remove.items()):
                is_done &= await self._remove(worker, owned)
            for worker, (model, source) in list(self._requests.wanted.items()):
                is_done &= await self._try_acquire(worker, model, source)
            for worker in self._unwanted():
                is_done &= await self._release(worker)
            if not is_done:
                await asyncio.sleep(_RETRY_SECONDS)
                self._requests.wake()

    # Workers that have left

    def _stop_writing_left_workers(self) -> None:
        while self._requests.left:
            worker = self._requests.left.pop()
            owned = self._writer.remove(worker)
            self._follower.workers.own.discard(worker)
            if owned is not None:
                self._to_remove[worker] = owned

    async def _remove(self, worker: Worker, owned: OwnedWorker) -> bool:
        """Return whether the store does not have the worker any more."""
        try:
            # A write that is still in flight may set bits after the removal.
            settled = not owned.unsettled_shards
            await self._store.remove_worker(worker, owned.epoch, settled=settled)
        except StoreError as error:
            self._failures.record(error)
            return False
        self._to_remove.pop(worker, None)
        return True

    # Workers that are wanted

    async def _try_acquire(self, worker: Worker, model: str, source: Source) -> bool:
        """Return whether the request is settled, so that it need not be tried again."""
        if self._requests.wanted.get(worker) != (model, source):
            return True  # its source was removed
        if worker in self._requests.left:
            return False  # the worker's former stream has to be released first
        try:
            return await self._acquire(worker, model, source)
        except StoreError as error:
            self._failures.record(error)
        except Exception as error:  # noqa: BLE001 - no other worker must wait for this one
            _log.exception("takeover_failed", pod=worker.pod, rank=worker.rank)
            self._failures.record(StoreError("internal", repr(error)))
        return False

    async def _acquire(self, worker: Worker, model: str, source: Source) -> bool:
        if worker in self._router.streams:
            self._requests.wanted.pop(worker, None)
            return True
        live = self._membership.live
        answer = await self._ownership.acquire(worker, model, source.endpoint, live)
        if self._requests.wanted.get(worker) != (model, source):
            return True  # it is not wanted any more: `run` releases it
        if not isinstance(answer, HeldBy):
            self._begin_stream(worker, model, source, answer)
            del self._requests.wanted[worker]
            return True
        await self._waiting.wait_for(worker, self._router.connection_of(worker, source))
        if not source.bind or not self._membership.is_staying(answer.replica):
            return False  # its owner is about to release it, or to lose its lease
        self._waiting.forget(worker)
        self._requests.refuse(worker, answer.replica)
        self._router.on_refused(worker)
        return True

    # Workers that are owned without being wanted

    def _unwanted(self) -> list[Worker]:
        """Return owned workers without a stream: no replica applies their events."""
        in_use = (self._router.streams, self._requests.wanted, self._requests.left)
        return [w for w in self._writer.owned if not any(w in workers for workers in in_use)]

    async def _release(self, worker: Worker) -> bool:
        """Return whether another replica can acquire the worker."""
        try:
            return await self._ownership.release(worker, partial(self._router.release, worker))
        except StoreError as error:
            self._failures.record(error)
        except Exception as error:  # noqa: BLE001 - no other worker must wait for this one
            _log.exception("release_failed", pod=worker.pod, rank=worker.rank)
            self._failures.record(StoreError("internal", repr(error)))
        return False

    def _begin_stream(self, worker: Worker, model: str, source: Source, takeover: Takeover) -> None:
        """Apply the worker's frames from now on; resume its stream if the dump allows it."""
        try:
            with decoding("dump of a stream"):
                if takeover.stream is not None:
                    check_dump(takeover.stream, worker, model)
                self._router.on_acquired(
                    worker, model, source, takeover.stream, self._waiting.note_of
                )
        except StoreError as error:
            self._router.release(worker)
            self._ownership.start_anew(worker, error)
            self._router.on_acquired(worker, model, source, None)
        self._waiting.forget(worker)
