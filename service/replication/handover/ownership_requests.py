"""Records which workers this replica wants to own, for the take-over loop to work off."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from typing_extensions import override

from kvevents import Owner, Ownership

if TYPE_CHECKING:
    from collections.abc import Collection

    from indexer import Worker
    from kvevents import Source
    from service.replication.membership import Membership

_REFUSED_SECONDS = 0.2  # frames of another replica's worker are dropped for so long


class OwnershipRequests(Ownership):
    """What the frame router has found out about workers. Every method returns at once."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self.wanted: dict[Worker, tuple[str, Source]] = {}
        """Workers to be acquired: model, and the source through which they publish."""
        self.handed_over: set[Source] = set()
        """Sources that are listened to until the next owners of their workers are ready."""
        self.left: set[Worker] = set()
        """Workers that have departed while this replica applied their events."""
        self.evicted: set[Worker] = set()
        """Workers of other replicas that have lost blocks here to the memory bound."""
        self._refused: dict[Worker, tuple[str, float]] = {}
        self._changed = asyncio.Event()

    # What the router calls

    @property
    @override
    def owns_everything(self) -> bool:
        return False

    @override
    def owner_of(self, worker: Worker, model: str, source: Source) -> Owner:
        if source in self.handed_over:
            return Owner.ELSEWHERE
        owner, until = self._refused.get(worker, ("", 0.0))
        if self._membership.is_staying(owner) and time.monotonic() < until:
            return Owner.ELSEWHERE
        if worker not in self.wanted:
            self.want(worker, model, source)
            self.wake()
        return Owner.PENDING

    @override
    def on_left(self, worker: Worker) -> None:
        self.left.add(worker)
        self.wake()

    @override
    def on_evicted(self, worker: Worker) -> None:
        self.evicted.add(worker)

    @override
    def on_source_removed(self, source: Source) -> Collection[Worker]:
        self.handed_over.discard(source)
        workers = [worker for worker, (_, of) in self.wanted.items() if of is source]
        for worker in workers:
            del self.wanted[worker]
        self.wake()  # what is being acquired is released
        return workers

    # What the loops of this replica call

    def want(self, worker: Worker, model: str, source: Source) -> None:
        """Request a worker; the take-over loop acquires it once it is woken."""
        self.wanted[worker] = (model, source)

    def refuse(self, worker: Worker, owner: str) -> None:
        """Give a worker up that a live replica owns; its frames are dropped for a while."""
        self._refused[worker] = owner, time.monotonic() + _REFUSED_SECONDS
        self.wanted.pop(worker, None)

    def wake(self) -> None:
        """Wake the take-over loop."""
        self._changed.set()

    async def wait(self) -> None:
        """Wait until the loop is woken."""
        await self._changed.wait()
        self._changed.clear()
