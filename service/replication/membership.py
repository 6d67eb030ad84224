"""Knows which replicas are live: each renews a lease in the store before it runs out."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from service.replication.store_failures import repeat
from store import LeavingReplicas, new_replica_id, replica_name

if TYPE_CHECKING:
    from collections.abc import Collection

    from service.replication.store_failures import StoreFailures
    from store import Store

_MAX_INTERVAL = 1.0
_REMEMBERED_SECONDS = 60.0  # that a replica has left, for those that were away meanwhile

_log = structlog.get_logger("kvatlas.service")


class Membership:
    """This replica's lease, and the live replicas as of its last heartbeat."""

    def __init__(
        self, store: Store, name: str, lease_seconds: float, failures: StoreFailures
    ) -> None:
        self._store = store
        self.name = name
        self.identity = new_replica_id(name)
        self._lease_seconds = lease_seconds
        self._failures = failures
        self._live: frozenset[str] = frozenset()
        self._heartbeats = 0
        self._heard = asyncio.Condition()
        self._last_renewal = 0.0
        self._presumed_live: frozenset[str] = frozenset()
        self._presumed_until = 0.0
        self._leaving: frozenset[str] = frozenset()
        self._announced = LeavingReplicas(store)
        self._left_since: dict[str, float] = {}

    @property
    def staying_names(self) -> list[str]:
        """Names of the live replicas that are not about to leave, sorted."""
        return sorted({replica_name(identity) for identity in self._live - self._leaving})

    @property
    def is_leaving(self) -> bool:
        """Whether this replica is about to leave."""
        return self.identity in self._leaving

    def is_staying(self, identity: str) -> bool:
        """Whether a replica is live, and not about to leave."""
        return identity in self._live and identity not in self._leaving

    async def announce_leaving(self) -> None:
        """Let others keep the frames of this replica's workers. Raises StoreError."""
        self._leaving |= {self.identity}
        await self._announced.add(self.identity)

    @property
    def live(self) -> Collection[str]:
        """Identities of the live replicas; empty before the first heartbeat."""
        return self._live

    @property
    def live_names(self) -> list[str]:
        """Names of the live replicas, sorted."""
        return sorted({replica_name(identity) for identity in self._live})

    def is_live(self, identity: str) -> bool:
        """Whether a replica is live."""
        return identity in self._live

    async def wait_for_heartbeat(self, seen: int) -> int:
        """Wait until more than `seen` heartbeats have succeeded; return how many have."""
        async with self._heard:
            await self._heard.wait_for(lambda: self._heartbeats > seen)
        return self._heartbeats

    async def run(self) -> None:
        """Renew the lease for ever."""
        await repeat(
            min(self._lease_seconds / 3, _MAX_INTERVAL), self.send_heartbeat, self._failures
        )

    async def send_heartbeat(self) -> None:
        """Renew the lease once, and learn who is live. Raises StoreError."""
        attempted_at = time.monotonic()
        first = not self._heartbeats
        answer = await self._store.heartbeat(self.identity, self._lease_seconds, first=first)
        live = answer.live | self._presumed(attempted_at, had_lease=answer.had_lease)
        leaving = await self._announced.read()
        await self._forget_left(leaving - live, attempted_at)
        self._leaving = (leaving & live) | (self._leaving & {self.identity})
        self._failures.clear()
        if live != self._live:
            self._live = live
            _log.info("replicas_live", replicas=self.live_names)
        async with self._heard:
            self._heartbeats += 1
            self._heard.notify_all()

    async def _forget_left(self, left: frozenset[str], now: float) -> None:
        """Remove what replicas that have left had said, once everybody has heard of it."""
        self._left_since = {replica: self._left_since.get(replica, now) for replica in left}
        since = self._left_since.items()
        if old := [replica for replica, then in since if now - then >= _REMEMBERED_SECONDS]:
            await self._announced.remove(old)

    def _presumed(self, now: float, *, had_lease: bool) -> frozenset[str]:
        """Return the replicas that count as live although they have not renewed their leases yet.

        After an outage of the store, or where it has lost the leases, no replica has had a chance
        to: whoever was live before gets the time of a lease for it, so that no worker changes hands
        for nothing. Whoever has left in the meantime said so, and counts as about to leave.
        """
        was_away = now - self._last_renewal > self._lease_seconds / 2
        if self._heartbeats and (was_away or not had_lease):
            self._presumed_live, self._presumed_until = self._live, now + self._lease_seconds
        self._last_renewal = now
        return self._presumed_live if now < self._presumed_until else frozenset()

    async def deregister(self) -> None:
        """End the lease at once. Raises StoreError."""
        await self._store.deregister(self.identity)
