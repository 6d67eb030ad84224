"""Acquires workers with everything that the store has of them, and releases them.

Hand-over: the former owner writes everything it has of a worker, with a dump of the worker's
stream, and ends its ownership. The next owner takes the rows from its copy if that is of the same
revision, else from the store, and resumes the stream at the frame where the dump ends.

What cannot be decoded is as good as lost: the worker starts anew, in a new generation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from indexer import StableHolderIds, model_scope
from store.errors import Failures, StoreError
from store.read import read_rows
from store.records import HandoverState
from store.store import HeldBy
from store.write import OwnedWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from indexer import ReplicatedIndex, Worker
    from store.read import Follower
    from store.store import Acquired, Store
    from store.write import Writer

_log = structlog.get_logger("kvatlas.store")


@dataclass(frozen=True)
class Takeover:
    """This replica owns the worker now, and its index has what the store had."""

    stream: dict[str, Any] | None
    """Dump from which to resume the worker's stream; None if it starts anew."""


class WorkerOwnership:
    """Acquires and releases workers: the writer writes the owned ones, the follower reads the rest.

    Args:
        store: who owns which worker.
        index: holds the workers' blocks.
        writer: writes the workers that are acquired.
        follower: follows those that are not.
        replica: identity of this replica.
        scheme_of: returns the name of the scheme of a model's block keys.
    """

    def __init__(
        self,
        store: Store,
        index: ReplicatedIndex,
        writer: Writer,
        follower: Follower,
        replica: str,
        scheme_of: Callable[[str], str] = lambda _: "",
    ) -> None:
        self._store = store
        self._index = index
        self._writer = writer
        self._follower = follower
        self._replica = replica
        self._scheme_of = scheme_of
        self.abandoned: dict[Worker, str] = {}
        """Workers that this replica may own in the store although it does not want them -> the
        replica that is to acquire them, or ""."""
        self.failures = Failures()
        """Acquired workers that had to start anew, by the kind of failure."""

    async def acquire(
        self, worker: Worker, model: str, endpoint: str, live: Collection[str]
    ) -> Takeover | HeldBy:
        """Make this replica the worker's owner, unless one of `live` owns it. Raises StoreError.

        endpoint: of the source through which the worker publishes.
        """
        workers = self._follower.workers
        workers.own.add(worker)
        self.abandoned[worker] = ""  # until everything has succeeded
        try:
            acquired = await self._store.acquire(worker, model, self._replica, live, fresh=False)
            if isinstance(acquired, HeldBy):
                workers.own.discard(worker)
                self.abandoned.pop(worker, None)
                return acquired
            scheme = self._scheme_of(model)
            owned = OwnedWorker(worker, model, model_scope(model), endpoint, scheme)
            state = await self._load(owned, acquired)
        except BaseException:
            workers.own.discard(worker)
            raise
        workers.take(worker)
        self.abandoned.pop(worker, None)
        self._writer.add(owned, acquired, state)
        return Takeover(None if state is None else state.stream)

    async def _load(self, owned: OwnedWorker, acquired: Acquired) -> HandoverState | None:
        """Load what the last owner left into the index; return its state, None to start anew."""
        if acquired.state:
            try:
                state = HandoverState.unpack(acquired.state)
                if state.stream is not None and state.scheme == owned.scheme:
                    await self._load_index(owned, acquired, state)
                    return state
            except StoreError as error:
                if error.kind != "malformed":
                    raise
                self._on_malformed(owned.worker, error)
            owned.needs_rewrite = True  # the store has rows that the index has not
        self._index.rejoin(owned.worker, owned.model)
        return None

    async def _load_index(
        self, owned: OwnedWorker, acquired: Acquired, state: HandoverState
    ) -> None:
        worker, generation = owned.worker, acquired.former_generation or acquired.generation
        if not acquired.former_generation and self._follower.has_revision(
            worker, generation, acquired.revision
        ):
            return
        rows = await read_rows(self._store, self._store.layout.home(worker), generation)
        self._index.rejoin(worker, owned.model)
        rows.apply(self._index, worker, state.layout, state.holder_ids)

    def start_anew(self, worker: Worker, error: StoreError) -> None:
        """Drop what the store had of an acquired worker, whose stream cannot be resumed."""
        self._on_malformed(worker, error)
        owned = self._writer.owned.get(worker)
        if owned is not None:
            self._index.rejoin(worker, owned.model)
            self._index.track(worker, StableHolderIds())
            self._writer.rewrite(worker)

    def _on_malformed(self, worker: Worker, error: StoreError) -> None:
        self.failures.record(error)
        _log.warning("worker_starts_anew", pod=worker.pod, rank=worker.rank, detail=str(error))

    async def release(
        self, worker: Worker, stop_stream: Callable[[], None], successor: str = ""
    ) -> bool:
        """Let another replica acquire the worker. Raises StoreError.

        Returns False if the store does not have everything yet: try again then.

        Args:
            worker: the worker.
            stop_stream: called once everything is written; from then on no event of the worker may
                be applied here.
            successor: the replica that goes on with the stream without a gap; empty: nobody knows.
        """
        owned = self._writer.owned.get(worker)
        if owned is None:
            stop_stream()
            self._follower.workers.own.discard(worker)  # whoever owns it is followed
            return True
        if not await self._writer.write_all(owned):
            return False
        if not self._writer.is_owned(owned):
            return True  # it was lost meanwhile, or has left: its removal is on its way
        self._writer.remove(worker)
        stop_stream()
        if owned.record is None:
            self._follower.workers.discard(worker)
        else:
            self._follower.workers.adopt(owned.record, owned.revision)
        self.abandoned[worker] = successor
        await self.release_abandoned()
        return True

    async def release_abandoned(self) -> None:
        """End the ownership of workers that this replica does not want. Raises StoreError."""
        for worker, successor in list(self.abandoned.items()):
            if worker not in self._follower.workers.own:
                await self._store.release(worker, self._replica, successor)
                self.abandoned.pop(worker, None)
