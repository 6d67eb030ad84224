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

from kvevents import SubscribeError
from store import StoreError, chosen, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from indexer import Worker
    from kvevents import Intake, Source
    from store import Copy, Store, Succession, Writer

_RETRY_SECONDS = 0.1
_REFUSED_SECONDS = 0.2  # frames of another's worker are dropped so long before it is asked again

_log = structlog.get_logger("kvatlas.service")


class Shares:
    """This replica's share; the `kvevents.Custody` of `intake`, which `share_out` makes known.

    live: the replicas that are. failed: told of failures of the store.
    """

    def __init__(
        self,
        name: str,
        store: Store,
        writer: Writer,
        copy: Copy,
        succession: Succession,
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
        self._leaving: dict[Worker, int] = {}
        self._kick = asyncio.Event()

    def share_out(self, intake: Intake) -> None:
        """What receives and applies events."""
        self._intake = intake
        self._ingest = intake.ingest

    # Sources

    async def settle(self) -> None:
        """Listen to what is ours, and to nothing else. Raises StoreError."""
        for source in self._intake.sources:
            if source.bind:
                continue
            is_ours = chosen(source.endpoint, set(map(name_of, self.live))) == self._name
            if is_ours and not self._intake.listens_to(source):
                try:
                    await self._intake.listen(source)
                except SubscribeError as error:
                    _log.warning("not_listening", endpoint=source.endpoint, detail=str(error))
                    continue
            if is_ours:  # also those that another has let go of since
                self._want_workers_of(source)
                if not self._has_workers_of(source):  # none yet, or the store has forgotten them
                    self._ingest.expect(source)
            else:
                await self._intake.close(source)
                await self._give_up_workers_of(source)
        self._kick.set()

    def _want_workers_of(self, source: Source) -> None:
        for worker, followed in self._copy.followed.items():
            standing = followed.standing
            if standing.endpoint == source.endpoint and source.may_be(worker.pod, standing.model):
                self._wanted[worker] = (standing.model, source)

    def _has_workers_of(self, source: Source) -> bool:
        wanted = (of for _, of in self._wanted.values())
        streams = (stream.source for stream in self._ingest.streams.values())
        return source in wanted or source in streams

    async def _give_up_workers_of(self, source: Source) -> None:
        for worker in [w for w, (_, of) in self._wanted.items() if of is source]:
            del self._wanted[worker]
            self._ingest.refuse(worker)
        for worker, stream in list(self._ingest.streams.items()):
            if stream.source is source:
                await self._give_up(worker)

    async def _give_up(self, worker: Worker) -> None:
        await self._succession.give_up(worker, partial(self._ingest.hand_over, worker))

    async def withdraw(self) -> None:
        """Give up everything in good order, so that others go on at once. Raises StoreError."""
        for source in self._intake.sources:
            await self._intake.close(source)
        for worker in list(self._ingest.streams):
            await self._give_up(worker)

    # Workers; see `kvevents.Custody`

    def asks(self, worker: Worker, model: str, source: Source) -> bool:
        """See `Custody.asks`."""
        owner, until = self._refused.get(worker, ("", 0.0))
        if owner in self.live and time.monotonic() < until:
            return False
        if worker not in self._wanted:
            self._wanted[worker] = (model, source)
            self._kick.set()
        return True

    def left(self, worker: Worker) -> None:
        """See `Custody.left`."""
        of = self._writer.disown(worker)
        self._copy.ours.discard(worker)
        if of is not None:
            self._leaving[worker] = of.epoch
            self._kick.set()

    def evicted(self, worker: Worker) -> None:
        """See `Custody.evicted`."""
        followed = self._copy.followed.get(worker)
        if followed is not None:
            followed.thinned = True

    async def run(self) -> None:
        """Take what is wanted, one after the other, for ever."""
        while True:
            await self._kick.wait()
            self._kick.clear()
            again = False
            for worker, epoch in list(self._leaving.items()):
                again |= not await self._leave(worker, epoch)
            for worker, (model, source) in list(self._wanted.items()):
                again |= not await self._take(worker, model, source)
            if again:
                await asyncio.sleep(_RETRY_SECONDS)
                self._kick.set()

    async def _leave(self, worker: Worker, epoch: int) -> bool:
        try:
            await self._store.leave(worker, epoch)
        except StoreError as error:
            self._failed(error)
            return False
        self._leaving.pop(worker, None)
        return True

    async def _take(self, worker: Worker, model: str, source: Source) -> bool:
        """Whether it is clear whose the worker is."""
        if worker in self._ingest.streams:
            del self._wanted[worker]
            return True
        try:
            taken = await self._succession.take(worker, model, source.endpoint, self.live)
        except StoreError as error:
            self._failed(error)
            return False
        if self._wanted.get(worker) != (model, source):  # no more
            if not isinstance(taken, str):
                await self._give_up(worker)
            return True
        if isinstance(taken, str):
            if not source.bind:
                return False  # its owner is about to give it up, or to be found dead
            self._refused[worker] = taken, time.monotonic() + _REFUSED_SECONDS
            self._ingest.refuse(worker)
        else:
            self._ingest.admit(worker, model, source, taken.dump)
        del self._wanted[worker]
        return True
