"""Once a second: collects garbage of this replica's workers, and its share of all other garbage."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from store import GarbageCollector, older_versions, remove_layout, rendezvous_owner

if TYPE_CHECKING:
    from indexer import ReplicatedIndex, Worker
    from service.replication.membership import Membership
    from store import Follower, Store, Writer

_GARBAGE_SECONDS = 60.0  # replicas that still load a generation have so long to finish

_log = structlog.get_logger("kvatlas.service")


class Housekeeping:
    """Decides what this replica collects, and when."""

    def __init__(
        self,
        store: Store,
        membership: Membership,
        writer: Writer,
        follower: Follower,
        index: ReplicatedIndex,
    ) -> None:
        self._store = store
        self._membership = membership
        self._writer = writer
        self._follower = follower
        self._collector = GarbageCollector(store, index, writer)
        self._first_seen: dict[str, float] = {}
        """Generation -> when it was first seen as garbage (`time.monotonic`)."""

    async def run_once(self) -> None:
        """Collect what is due. Raises StoreError."""
        for owned in list(self._writer.owned.values()):
            if owned.retired_bits:
                await self._collector.collect_worker(owned)
        await self._collect_generations()
        for old in await older_versions(self._store):
            if self._is_responsible_for(f"layout {old.layout.version}") and await remove_layout(
                old
            ):
                _log.info("layout_retired", version=old.layout.version)

    async def remove_unowned(self, pod: str) -> bool:
        """Remove the workers of a pod that is gone, but for those of live replicas: these do it.

        Only the store knows of those that are about to change hands who owns them.

        Returns whether none is left. Raises StoreError.
        """
        spared = [each for each in self._membership.live if each != self._membership.identity]
        is_none_left = True
        for worker in self._workers_of(pod):
            if await self._store.remove_worker(worker, None, spared=spared):
                self._follower.workers.remove(worker)
            else:
                is_none_left = False
        return is_none_left

    async def remove_pod(self, pod: str) -> bool:
        """Remove a pod's workers, whoever owns them; returns whether there were any.

        Raises StoreError.
        """
        workers = self._workers_of(pod)
        for worker in workers:
            await self._store.remove_worker(worker, None)
            self._follower.workers.remove(worker)
        return bool(workers)

    def _workers_of(self, pod: str) -> list[Worker]:
        """The pod's workers that other replicas own, or nobody."""
        return [worker for worker in self._follower.workers.remote if worker.pod == pod]

    async def _collect_generations(self) -> None:
        now = time.monotonic()
        statuses = self._follower.shard_statuses
        garbage = {g.generation: g for status in statuses for g in status.garbage}
        self._first_seen = {name: self._first_seen.get(name, now) for name in garbage}
        for name, generation in garbage.items():
            is_due = now - self._first_seen[name] > _GARBAGE_SECONDS
            if is_due and self._is_responsible_for(name):
                await self._collector.collect(generation)

    def _is_responsible_for(self, name: str) -> bool:
        return rendezvous_owner(name, self._membership.live) == self._membership.identity
