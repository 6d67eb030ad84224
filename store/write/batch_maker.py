"""What has changed of workers -> the batches that write it."""

from __future__ import annotations

import asyncio
from array import array
from typing import TYPE_CHECKING

import structlog

from store.errors import StoreError
from store.write.stale_rows import overwritten_keys
from store.write.write_batch import drain_worker, make_write_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from indexer import ReplicatedIndex
    from store.store import Store
    from store.write.owned_worker import OwnedWorker
    from store.write.streams import Streams
    from store.write.write_batch import WriteBatch

_log = structlog.get_logger("kvatlas.store")


class BatchMaker:
    """Makes the batches of a writer.

    Args:
        store: where they will be written to.
        index: where the workers' blocks are.
        streams: of this replica's workers.
        replica: identity of this replica.
        is_ready: whether a worker's batch can be made, which may change with every call of the
            store.
        on_failure: is told of each failure.
    """

    def __init__(
        self,
        store: Store,
        index: ReplicatedIndex,
        streams: Streams,
        replica: str,
        is_ready: Callable[[OwnedWorker], bool],
        on_failure: Callable[[StoreError], None],
    ) -> None:
        self._store = store
        self._index = index
        self._streams = streams
        self._replica = replica
        self._is_ready = is_ready
        self._on_failure = on_failure

    async def make(self, workers: Sequence[OwnedWorker]) -> list[WriteBatch]:
        """Take what has changed of workers from the index.

        Workers that are not ready, or for which this fails, have no batch: what has changed of them
        is written in a later round.
        """
        overwriting = {owned.worker: owned for owned in workers if self._overwrites(owned)}
        made: list[WriteBatch] = []
        try:
            await asyncio.gather(*(self._add_overwriting(made, o) for o in overwriting.values()))
        except BaseException:
            for batch in made:
                batch.requeue(self._index)
            raise
        # From here on nothing waits for the store.
        for owned in workers:
            if owned.worker not in overwriting and not self._overwrites(owned):
                self._add(made, owned)
        return made

    def _overwrites(self, owned: OwnedWorker) -> bool:
        holder_ids = self._index.holder_ids_of(owned.worker)
        return holder_ids is not None and owned.overwrites(holder_ids.scored())

    def _add(self, made: list[WriteBatch], owned: OwnedWorker) -> None:
        if not self._is_ready(owned):
            return
        try:
            news = drain_worker(self._index, self._streams, owned)
            made.append(make_write_batch(self._store.layout, self._replica, owned, news))
        except Exception as error:  # noqa: BLE001 - no other worker must wait for this one
            self._fail(owned, error)

    async def _add_overwriting(self, made: list[WriteBatch], owned: OwnedWorker) -> None:
        """Add what to write of a worker that was cleared, see `stale_rows`."""
        if not self._is_ready(owned):
            return
        news = drain_worker(self._index, self._streams, owned)
        names = array("Q") if news.changes is None else news.changes.names
        live, batch = set(news.holder_ids.ids.values()), None
        try:
            stale = await overwritten_keys(self._store, owned, names, live)
            batch = make_write_batch(self._store.layout, self._replica, owned, news, stale)
            made.append(batch)
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(owned, error)
        finally:
            if batch is None and news.changes is not None:  # what was drained must not be lost
                self._index.requeue(owned.worker, names, news.changes.keys)

    def _fail(self, owned: OwnedWorker, error: Exception) -> None:
        if not isinstance(error, StoreError):
            _log.exception("write_failed", pod=owned.worker.pod, rank=owned.worker.rank)
            error = StoreError("internal", repr(error))
        # What was drained, or what else the store has lost, is not known.
        owned.needs_rewrite |= error.kind in ("internal", "malformed")
        self._on_failure(error)
