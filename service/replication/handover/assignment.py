"""Assigns sources to replicas: each source that can be connected to is one replica's.

Rendezvous hashing over the live replicas decides, so that all of them come to the same answer. The
workers of a source are those of the replica that listens to it. A bound source is every replica's:
a worker that connects there belongs to the replica that hears it first.

A source changes hands with an overlap: the replica that has it listens on, and applies its events,
until the next one keeps the workers' frames (see `WaitingOwners`), or the time for that is over.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import structlog

from kvevents import SubscribeError
from store import StoreError, rendezvous_owner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from indexer import Worker
    from kvevents import Listener, Source
    from service.replication.handover.ownership_requests import OwnershipRequests
    from service.replication.handover.waiting import WaitingOwners
    from service.replication.membership import Membership
    from store import Follower, WorkerOwnership

_OVERLAP_SECONDS = 15.0  # the next owner has so long to find the source, and to keep frames
_LEAVING_OVERLAP_SECONDS = 3.0  # the same where this replica leaves
_BOUND_OVERLAP_SECONDS = 1.5  # of idle workers that connect here no frame comes that could be kept

_log = structlog.get_logger("kvatlas.service")


class SourceAssignment:
    """Listens to the sources of this replica, and releases the workers of all others."""

    def __init__(
        self,
        listener: Listener,
        membership: Membership,
        requests: OwnershipRequests,
        follower: Follower,
        ownership: WorkerOwnership,
        waiting: WaitingOwners,
    ) -> None:
        self._waiting = waiting
        self._handed_over_since: dict[Source, tuple[list[str], float]] = {}
        self._not_listening: set[Source] = set()
        self._listener = listener
        self._router = listener.router
        self._membership = membership
        self._requests = requests
        self._follower = follower
        self._ownership = ownership

    def begin_leaving(self) -> None:
        """Give the next owners time from now on, however long they have had it already."""
        self._handed_over_since.clear()

    async def assign_sources(self) -> None:
        """Listen to this replica's sources, and to no others. Raises StoreError.

        A worker that cannot be released holds no other up.
        """
        names, failure = self._membership.staying_names, None
        for source in list(self._listener.sources):
            if source not in self._listener.sources:
                continue  # it was removed while the store was asked
            if source.bind and not self._membership.is_leaving:
                continue
            owner = None if source.bind else rendezvous_owner(source.endpoint, names)
            if owner == self._membership.name:
                self._requests.handed_over.discard(source)
                self._handed_over_since.pop(source, None)
                await self._take(source)
            else:
                next_ones = names if owner is None else [owner]
                failure = await self._hand_over(source, next_ones) or failure
        self._forget_removed_sources()
        self._requests.wake()
        if failure is not None:
            raise failure

    def _forget_removed_sources(self) -> None:
        sources = self._listener.sources
        self._refuse(lambda of: of not in sources)
        self._requests.handed_over.intersection_update(sources)
        self._not_listening.intersection_update(sources)
        for source in self._handed_over_since.keys() - sources.keys():
            del self._handed_over_since[source]

    def _refuse(self, is_meant: Callable[[Source], bool]) -> None:
        """Want no worker of such sources any more."""
        meant = [worker for worker, (_, of) in self._requests.wanted.items() if is_meant(of)]
        for worker in meant:
            del self._requests.wanted[worker]
            self._waiting.forget(worker)
            self._router.on_refused(worker)

    async def _hand_over(self, source: Source, next_ones: list[str]) -> StoreError | None:
        """Release the workers of a source whose frames others keep by now; then stop listening.

        next_ones: names of those who may apply its events next.
        """
        wanted = [worker for worker, (_, of) in self._requests.wanted.items() if of is source]
        if any(map(self._waiting.is_next, wanted)):
            return None  # first it is acquired: frames are kept here, and nowhere else yet
        self._requests.handed_over.add(source)
        self._refuse(lambda of: of is source)
        to, since = self._handed_over_since.get(source, ([], 0.0))
        if to != next_ones:
            since = time.monotonic()
            self._handed_over_since[source] = next_ones, since
        is_over = not next_ones or time.monotonic() - since > self._overlap_seconds(source)
        successors = {
            worker: self._successor_of(worker, next_ones) for worker in self._workers_of(source)
        }
        failure = await self._release({w: to for w, to in successors.items() if to or is_over})
        if not self._workers_of(source):
            await self._listener.stop_listening(source)
            self._requests.handed_over.discard(source)
            self._handed_over_since.pop(source, None)
        return failure

    def _successor_of(self, worker: Worker, names: list[str]) -> str:
        """Who keeps a worker's frames; empty: nobody, or one that has left since it said so."""
        successor = self._waiting.successor_of(worker, names)
        return successor if self._membership.is_staying(successor) else ""

    def _overlap_seconds(self, source: Source) -> float:
        if source.bind:
            return _BOUND_OVERLAP_SECONDS
        return _LEAVING_OVERLAP_SECONDS if self._membership.is_leaving else _OVERLAP_SECONDS

    def _workers_of(self, source: Source) -> list[Worker]:
        """The workers of this replica that publish through a source."""
        streams = list(self._router.streams.items())
        return [worker for worker, stream in streams if stream.source is source]

    async def _take(self, source: Source) -> None:
        if not self._listener.is_listening_to(source):
            try:
                await self._listener.listen(source)
            except SubscribeError as error:
                if source not in self._not_listening:  # it is tried at each heartbeat
                    _log.warning("not_listening", endpoint=source.endpoint, detail=str(error))
                self._not_listening.add(source)
                return
            self._not_listening.discard(source)
        self._want_workers_of(source)  # also those that another replica has released since
        if not self._has_workers_of(source):  # none yet, or the store has lost them
            self._router.expected.add_source(source)

    def _want_workers_of(self, source: Source) -> None:
        for worker, known in self._follower.workers.remote.items():
            record = known.record
            if record.endpoint == source.endpoint and source.could_publish(worker, record.model):
                self._requests.want(worker, record.model, source)

    def _has_workers_of(self, source: Source) -> bool:
        wanted = (wanted_source for _, wanted_source in self._requests.wanted.values())
        streams = (stream.source for stream in self._router.streams.values())
        return source in wanted or source in streams

    async def release_all(self) -> None:
        """Release all sources and workers, so that others go on at once. Raises StoreError."""
        for source in list(self._listener.sources):
            await self._listener.stop_listening(source)
        failure = await self._release(dict.fromkeys(self._router.streams, ""))
        if failure is not None:
            raise failure

    async def _release(self, successors: Mapping[Worker, str]) -> StoreError | None:
        """Release workers, each if the store allows it; return a failure that kept one."""
        failure = None
        for worker, successor in successors.items():
            stop_stream = partial(self._router.release, worker)
            try:
                if await self._ownership.release(worker, stop_stream, successor):
                    self._waiting.released(worker)
            except StoreError as error:
                failure = error
        return failure
