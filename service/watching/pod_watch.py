"""Finds changes of ranks, and tells those who watch."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from service.watching.states import Change, RankChange, RankState, change_between
from service.watching.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator

    from indexer import Worker
    from service.replication import Replica

_MOST_WATCHERS = 16
_LOOK_SECONDS = 0.1
_WORKERS_AT_ONCE = 256


class TooManyWatchersError(Exception):
    """As many watch already as are allowed."""


class PodWatch:
    """Watches the ranks for as long as anybody wants to know.

    A change of trust that a frame causes is told at once. Others come with time, or from other
    replicas: all ranks are looked at every tenth of a second, by whoever waits for changes.

    Args:
        replica: knows the workers.
    """

    def __init__(self, replica: Replica) -> None:
        self._workers = replica.workers
        self._streams = replica.listener.router.streams
        self._watchers: set[Watcher] = set()
        self._known: dict[Worker, RankState] = {}  # up to date while anybody watches
        self._changed: set[Worker] = set()  # to be looked at in the event loop's next step
        self._look_at_time = 0.0
        replica.listener.router.trust_watchers.append(self._on_trust_changed)

    def __len__(self) -> int:
        return len(self._watchers)

    @contextmanager
    def watching(
        self, model: str = "", pods: Collection[str] = ()
    ) -> Iterator[AsyncIterator[RankChange]]:
        """Yield the states of the ranks, then their changes, within this block.

        Args:
            model: whose pods to watch; empty: those of all models.
            pods: which of them; empty: all.

        Raises TooManyWatchersError.
        """
        if len(self._watchers) >= _MOST_WATCHERS:
            raise TooManyWatchersError(f"{_MOST_WATCHERS} callers watch pods already")
        if not self._watchers:
            self._known.clear()
            for worker, serves in self._workers.models():
                self._look_at(worker, serves, time.monotonic())
        watcher = Watcher(model, pods)
        listed = [each for each in self._known.values() if watcher.accepts(each)]
        self._watchers.add(watcher)
        try:
            yield self._changes(watcher, listed)
        finally:
            self._watchers.discard(watcher)

    async def _changes(
        self, watcher: Watcher, listed: Collection[RankState]
    ) -> AsyncIterator[RankChange]:
        now = time.time()
        for state in listed:
            yield RankChange(Change.LISTED, state, now)
        yield RankChange(Change.LIST_COMPLETE, None, time.time())
        while True:
            while (change := watcher.take()) is not None:
                yield change
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await watcher.woken.wait()
            except TimeoutError:
                await self._look()

    # Finding changes

    def _on_trust_changed(self, worker: Worker) -> None:
        if not self._watchers:
            return
        if not self._changed:  # the frame may not be applied to its end yet
            asyncio.get_running_loop().call_soon(self._look_at_changed)
        self._changed.add(worker)

    def _look_at_changed(self) -> None:
        changed, self._changed = self._changed, set()
        for worker in changed:
            stream = self._streams.get(worker)
            if stream is not None:
                self._look_at(worker, stream.model, time.monotonic())

    async def _look(self) -> None:
        """Look at all ranks, unless somebody has just done so."""
        now = time.monotonic()
        if now < self._look_at_time:
            return
        self._look_at_time = now + _LOOK_SECONDS
        for number, (worker, model) in enumerate(list(self._workers.models())):
            if number % _WORKERS_AT_ONCE == _WORKERS_AT_ONCE - 1:
                await asyncio.sleep(0)
            self._look_at(worker, model, time.monotonic())
        present = dict(self._workers.models())
        for worker in [worker for worker in self._known if worker not in present]:
            self._tell(Change.DISAPPEARED, self._known.pop(worker))

    def _look_at(self, worker: Worker, model: str, now: float) -> None:
        try:
            after = RankState(
                worker,
                model,
                self._workers.trust_status(worker, now),
                self._workers.restarts(worker),
                self._workers.owner(worker),
            )
        except KeyError:  # it has left while others were looked at
            return
        before = self._known.get(worker)
        self._known[worker] = after
        if before is not None and before.model != model:
            self._tell(Change.DISAPPEARED, before)
            before = None
        change = Change.APPEARED if before is None else change_between(before, after)
        if change is not None:
            self._tell(change, after)

    def _tell(self, change: Change, state: RankState) -> None:
        told = RankChange(change, state, time.time())
        for watcher in self._watchers:
            if watcher.accepts(state):
                watcher.put(told)
