"""Assigns sources to replicas: each source that can be connected to is one replica's.

Rendezvous hashing over the live replicas decides, so that all of them come to the same answer. The
workers of a source are those of the replica that listens to it. A bound source is every replica's:
a worker that connects there belongs to the replica that hears it first.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import structlog

from kvevents import SubscribeError
from store import StoreError, rendezvous_owner

if TYPE_CHECKING:
    from collections.abc import Iterable

    from indexer import Worker
    from kvevents import Listener, Source
    from service.replication.membership import Membership
    from service.replication.ownership_requests import OwnershipRequests
    from store import Follower, WorkerOwnership

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
    ) -> None:
        self._listener = listener
        self._router = listener.router
        self._membership = membership
        self._requests = requests
        self._follower = follower
        self._ownership = ownership

    async def assign_sources(self) -> None:
        """Listen to this replica's sources, and to no others. Raises StoreError.

        A worker that cannot be released holds no other up.
        """
        names, failure = self._membership.live_names, None
        for source in list(self._listener.sources):
            if source.bind:
                continue
            if rendezvous_owner(source.endpoint, names) == self._membership.name:
                await self._take(source)
            else:
                await self._listener.stop_listening(source)
                failure = await self._release_workers_of(source) or failure
        self._refuse_workers_of_others()
        self._requests.wake()
        if failure is not None:
            raise failure

    def _refuse_workers_of_others(self) -> None:
        """Want no worker any more whose source was removed."""
        sources = set(self._listener.sources)
        removed = [w for w, (_, source) in self._requests.wanted.items() if source not in sources]
        for worker in removed:
            del self._requests.wanted[worker]
            self._router.on_refused(worker)

    async def _take(self, source: Source) -> None:
        if not self._listener.is_listening_to(source):
            try:
                await self._listener.listen(source)
            except SubscribeError as error:
                _log.warning("not_listening", endpoint=source.endpoint, detail=str(error))
                return
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

    async def _release_workers_of(self, source: Source) -> StoreError | None:
        wanted = [w for w, (_, of_worker) in self._requests.wanted.items() if of_worker is source]
        for worker in wanted:
            del self._requests.wanted[worker]
            self._router.on_refused(worker)
        streams = list(self._router.streams.items())
        return await self._release([w for w, stream in streams if stream.source is source])

    async def release_all(self) -> None:
        """Release all sources and workers, so that others go on at once. Raises StoreError."""
        for source in list(self._listener.sources):
            await self._listener.stop_listening(source)
        failure = await self._release(list(self._router.streams))
        if failure is not None:
            raise failure

    async def _release(self, workers: Iterable[Worker]) -> StoreError | None:
        """Release workers, each if the store allows it; return a failure that kept one."""
        failure = None
        for worker in workers:
            try:
                await self._ownership.release(worker, partial(self._router.release, worker))
            except StoreError as error:
                failure = error
        return failure
