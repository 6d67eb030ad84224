"""Whose events are applied here: sources and workers, shared out among the replicas.

A source that is connected to is listened to by one replica, by rendezvous over those that are live,
and its workers are that one's. A worker that speaks through a bound endpoint is whose it speaks to
first. One that was not known here is asked for in the store before its events are applied.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

import structlog

from kvevents import Owner, SubscribeError
from store import StoreError, rendezvous_owner, replica_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from indexer import Worker
    from kvevents import Listener, Source
    from store import Follower, Store, WorkerOwnership, Writer

_RETRY_SECONDS = 0.1
_REFUSED_SECONDS = 0.2  # frames of another's worker are dropped so long before it is asked again

_log = structlog.get_logger("kvatlas.service")


class SourceAssignment:
    """This replica's share; the `kvevents.Ownership` of `intake`, which `share_out` makes known.

    live: the replicas that are. failed: told of failures of the store.
    """

    def __init__(
        self,
        name: str,
        store: Store,
        writer: Writer,
        copy: Follower,
        succession: WorkerOwnership,
        failed: Callable[[StoreError], None],
    ) -> None:
        self._name = name
        self._store = store
        self._writer = writer
        self._copy = copy
        self._succession = succession
        self._failed = failed
        self.live: Collection[str] = ()
        self._wanted: dict[Worker, tuple[str, Source]] = {}
        self._refused: dict[Worker, tuple[str, float]] = {}
        self._to_remove: dict[Worker, int] = {}
        self._wake = asyncio.Event()

    def listen_with(self, intake: Listener) -> None:
        """What receives and applies events."""
        self._intake = intake
        self._ingest = intake.router

    # Sources

    async def assign_sources(self) -> None:
        """Listen to what is ours, and to nothing else. Raises StoreError."""
        for source in self._intake.sources:
            if source.bind:
                continue
            is_ours = (
                rendezvous_owner(source.endpoint, set(map(replica_name, self.live))) == self._name
            )
            if is_ours and not self._intake.is_listening_to(source):
                try:
                    await self._intake.listen(source)
                except SubscribeError as error:
                    _log.warning("not_listening", endpoint=source.endpoint, detail=str(error))
                    continue
            if is_ours:  # also those that another has let go of since
                self._want_workers_of(source)
                if not self._has_workers_of(source):  # none yet, or the store has forgotten them
                    self._ingest.expected.add_source(source)
            else:
                await self._intake.stop_listening(source)
                await self._give_up_workers_of(source)
        self._wake.set()

    def _want_workers_of(self, source: Source) -> None:
        for worker, followed in self._copy.remote_workers.items():
            standing = followed.record
            if standing.endpoint == source.endpoint and source.could_publish(
                worker.pod, standing.model
            ):
                self._wanted[worker] = (standing.model, source)

    def _has_workers_of(self, source: Source) -> bool:
        wanted = (of for _, of in self._wanted.values())
        streams = (stream.source for stream in self._ingest.streams.values())
        return source in wanted or source in streams

    async def _give_up_workers_of(self, source: Source) -> None:
        for worker in [w for w, (_, of) in self._wanted.items() if of is source]:
            del self._wanted[worker]
            self._ingest.on_refused(worker)
        for worker, stream in list(self._ingest.streams.items()):
            if stream.source is source:
                await self._release(worker)

    async def _release(self, worker: Worker) -> None:
        await self._succession.release(worker, partial(self._ingest.release, worker))

    async def release_all(self) -> None:
        """Give up everything in good order, so that others go on at once. Raises StoreError."""
        for source in self._intake.sources:
            await self._intake.stop_listening(source)
        for worker in list(self._ingest.streams):
            await self._release(worker)

    # Workers; see `kvevents.Ownership`

    @property
    def owns_everything(self) -> bool:
        """See `Ownership.owns_everything`."""
        return False

    def owner_of(self, worker: Worker, model: str, source: Source) -> Owner:
        """See `Ownership.owner_of`."""
        owner, until = self._refused.get(worker, ("", 0.0))
        if owner in self.live and time.monotonic() < until:
            return Owner.ELSEWHERE
        if worker not in self._wanted:
            self._wanted[worker] = (model, source)
            self._wake.set()
        return Owner.PENDING

    def on_left(self, worker: Worker) -> None:
        """See `Ownership.left`."""
        of = self._writer.remove(worker)
        self._copy.own_workers.discard(worker)
        if of is not None:
            self._to_remove[worker] = of.epoch
            self._wake.set()

    def on_evicted(self, worker: Worker) -> None:
        """See `Ownership.evicted`."""
        followed = self._copy.remote_workers.get(worker)
        if followed is not None:
            followed.evicted_locally = True

    async def run(self) -> None:
        """Take what is wanted, one after the other, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            again = False
            for worker, epoch in list(self._to_remove.items()):
                again |= not await self._remove(worker, epoch)
            for worker, (model, source) in list(self._wanted.items()):
                again |= not await self._acquire(worker, model, source)
            if again:
                await asyncio.sleep(_RETRY_SECONDS)
                self._wake.set()

    async def _remove(self, worker: Worker, epoch: int) -> bool:
        try:
            await self._store.remove_worker(worker, epoch)
        except StoreError as error:
            self._failed(error)
            return False
        self._to_remove.pop(worker, None)
        return True

    async def _acquire(self, worker: Worker, model: str, source: Source) -> bool:
        """Whether it is clear whose the worker is."""
        if worker in self._ingest.streams:
            del self._wanted[worker]
            return True
        try:
            taken = await self._succession.acquire(worker, model, source.endpoint, self.live)
        except StoreError as error:
            self._failed(error)
            return False
        if self._wanted.get(worker) != (model, source):  # no more
            if not isinstance(taken, str):
                await self._release(worker)
            return True
        if isinstance(taken, str):
            if not source.bind:
                return False  # its owner is about to give it up, or to be found dead
            self._refused[worker] = taken, time.monotonic() + _REFUSED_SECONDS
            self._ingest.on_refused(worker)
        else:
            self._ingest.on_acquired(worker, model, source, taken.dump)
        del self._wanted[worker]
        return True
