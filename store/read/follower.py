"""This replica's copy of the workers that others own, kept up to date by the store's journal.

Loading a worker: its pages are read one after the other while its owner goes on writing, so that
the rows read may be of different revisions. Afterwards the record is read once more. Its revision
is the target: every entry up to it is in the journal, and entries are absolute, so that applying
them to rows that have them already does no harm. Until the copy has applied the target, blocks may
be missing or too many, and the worker counts as *loading*.

Following: revisions are consecutive within a generation. An entry that skips one, or that is of
another generation, means that an entry was missed: the worker is loaded again.

Without a copy (`with_blocks` false) only records and reports are kept.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import structlog

from store.errors import Failures, StoreError
from store.layout import worker_name
from store.read.generation import Rows, read_rows
from store.read.journal import MAX_ENTRIES, Journal
from store.read.remote_workers import RemoteWorkers
from store.records import HandoverState, JournalEntry, WorkerRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from indexer import ReplicatedIndex, Worker
    from store.records import ShardStatus
    from store.store import Store

_BACKOFF_FIRST, _BACKOFF_LIMIT = 0.05, 1.0
_SLICE_SECONDS = 0.0005  # of applying entries, between which other tasks run

_log = structlog.get_logger("kvatlas.store")


class Follower:
    """Follows the workers of other replicas.

    Args:
        store: what to follow.
        index: what to apply it to.
        with_blocks: whether to keep a copy of the blocks.
        on_applied: called whenever blocks were applied.
        evicted: see `RemoteWorkers`.
    """

    def __init__(
        self,
        store: Store,
        index: ReplicatedIndex,
        *,
        with_blocks: bool,
        on_applied: Callable[[], None] = lambda: None,
        evicted: set[Worker] | None = None,
    ) -> None:
        self._store = store
        self._index = index
        self.with_blocks = with_blocks
        self._on_applied = on_applied
        self.workers = RemoteWorkers(index, evicted)
        self.shard_statuses: list[ShardStatus] = []
        """As read by the last `refresh`."""
        self.refreshed_at: float | None = None
        """When they were asked for (`time.monotonic`)."""
        self.failures = Failures()
        """By kind."""
        self.loads = 0
        """Workers loaded."""
        self.entries = 0
        """Journal entries applied."""
        self._progressed = asyncio.Event()
        self._caught_up: dict[int, float] = {}

    # Lag

    def seconds_behind(self, now: float) -> float | None:
        """Return the seconds since the copy was known to be as the store; None if it never was."""
        shards = range(self._store.layout.shards)
        if not all(shard in self._caught_up for shard in shards):
            return None
        return now - min(self._caught_up[shard] for shard in shards)

    @property
    def is_warm(self) -> bool:
        """Whether every worker was loaded."""
        return self.seconds_behind(time.monotonic()) is not None and not any(
            worker.loading for worker in self.workers.remote.values()
        )

    def has_revision(self, worker: Worker, generation: str, revision: int) -> bool:
        """Whether the copy has exactly that revision of the worker."""
        known = self.workers.remote.get(worker)
        return (
            self.with_blocks
            and known is not None
            and not known.loading
            and (known.record.generation, known.revision) == (generation, revision)
            and worker not in self.workers.to_reload
        )

    async def wait_for_progress(self) -> None:
        """Wait until more of the store was applied, or nothing more is known to be there."""
        self._progressed.clear()
        await self._progressed.wait()

    # Following

    async def follow_shard(self, shard: int) -> None:
        """Follow the journal of one shard for ever."""
        wait, journal = _BACKOFF_FIRST, Journal(self._store, shard)
        while True:
            try:
                if not journal.position:
                    journal.position = await self._begin(shard)
                await self._follow(shard, journal)
            except StoreError as error:
                self._on_failure(error)
                if error.kind == "malformed":  # an entry of the journal, of an unknown worker
                    self._reload_shard(shard)
                    journal.position = b""
            except Exception as error:  # noqa: BLE001 - the copy may be wrong now: load it again
                _log.exception("copy_failed", shard=shard)
                self.failures.record(StoreError("internal", repr(error)))
                self._reload_shard(shard)
                journal.position = b""
            else:
                wait = _BACKOFF_FIRST
                continue
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311
            wait = min(2 * wait, _BACKOFF_LIMIT)

    async def _begin(self, shard: int) -> bytes:
        """Load every worker of a shard; return the journal position from which to follow them."""
        status = (await self._store.shard_statuses())[shard]
        for record in status.records.values():
            await self._load(record)
        return status.newest

    async def _follow(self, shard: int, journal: Journal) -> None:
        """Apply some entries of the journal."""
        for worker in [w for w in self.workers.to_reload if self._store.layout.home(w) == shard]:
            await self._reload(worker)
        asked_at = time.monotonic()
        entries = await journal.read()
        slice_end = time.perf_counter() + _SLICE_SECONDS
        for entry_id, blob in entries:
            await self._apply(JournalEntry.unpack(blob))
            journal.position = entry_id
            if time.perf_counter() > slice_end:
                await asyncio.sleep(0)
                slice_end = time.perf_counter() + _SLICE_SECONDS
        if len(entries) < MAX_ENTRIES:
            self._caught_up[shard] = asked_at
        self._progressed.set()

    def _reload_shard(self, shard: int) -> None:
        for worker, known in self.workers.remote.items():
            if self._store.layout.home(worker) == shard:
                known.complete = False
                self.workers.to_reload.add(worker)

    async def _apply(self, entry: JournalEntry) -> None:
        worker, record = entry.worker, entry.record
        if worker in self.workers.own:
            return
        if entry.removed or record is None:
            self.workers.remove(worker)
            return
        known = self.workers.remote.get(worker)
        same_generation = known is not None and known.record.generation == record.generation
        if record.revision == 1 and not same_generation:
            known = self.workers.add(record, 0, 0)  # the first entry has everything there is
        elif not (known and known.complete and same_generation) or (
            record.revision > known.revision + 1
        ):
            await self._load(record)  # entries were missed
            return
        elif record.revision <= known.revision:  # loading has read it already
            return
        self.entries += 1
        if self.with_blocks:
            known.complete = False  # until the entry was applied, whatever goes wrong
            rows = Rows(entry.names, entry.counts, entry.rows)
            rows.apply(self._index, worker, record.layout, entry.holder_ids)
            known.complete = True
            self._on_applied()
        known.record, known.revision = record, record.revision

    # Loading

    async def _reload(self, worker: Worker) -> None:
        status = (await self._store.shard_statuses())[self._store.layout.home(worker)]
        record = status.records.get(worker_name(worker))
        if record is not None:
            await self._load(record)
        # If the store has lost it, the copy answers, marked, until its owner has written it again.
        self.workers.to_reload.discard(worker)

    async def _load(self, record: WorkerRecord) -> None:
        """Load all of a worker. `record` must not be newer than what is about to be read."""
        worker = record.worker
        if worker in self.workers.own:
            return
        known = self.workers.add(record, record.revision, 0)
        if not self.with_blocks:
            return
        known.complete = False  # until everything was read, whatever goes wrong
        try:
            await self._load_blocks(record)
        except StoreError as error:
            if error.kind != "malformed":
                raise
            # Other workers must not wait for this one: its owner is asked to write it again.
            self._on_failure(error)
            self.workers.malformed[worker] = record.generation
            await self._store.request(worker, "rewrite", if_none=True)

    async def _load_blocks(self, record: WorkerRecord) -> None:
        worker, home = record.worker, self._store.layout.home(record.worker)
        rows = await read_rows(self._store, home, record.generation)
        blob = await self._store.handover_state(worker)
        status = (await self._store.shard_statuses())[home]
        newest = status.records.get(worker_name(worker))
        known = self.workers.remote.get(worker)
        if worker in self.workers.own or known is None:
            return  # it was acquired or removed meanwhile
        if newest is None or newest.generation != record.generation:
            self.workers.to_reload.add(worker)  # the state may be that of another generation
            return
        if blob:  # later than the rows, so that every holder id in them is known
            state = HandoverState.unpack(blob)
            rows.apply(self._index, worker, state.layout, state.holder_ids)
            self._on_applied()
        elif rows.names:
            raise StoreError("malformed", "a generation without its handover state")
        known.target_revision, known.complete = newest.revision, True
        self.loads += 1

    # Records and reports, every second

    async def refresh(self) -> None:
        """Read the records and reports of all workers. Raises StoreError."""
        asked_at = time.monotonic()
        statuses = self.shard_statuses = await self._store.shard_statuses()
        self.refreshed_at, now = asked_at, time.monotonic()
        records = {r.worker: r for status in statuses for r in status.records.values()}
        self.workers.update_missing(records, now)
        self.workers.to_reload.intersection_update(records)
        for record in records.values():
            self._check_announced(record, asked_at)
        for status in statuses:
            self.workers.update_reports(status.reports, now)
        for worker, generation in list(self.workers.malformed.items()):
            if worker in records and records[worker].generation == generation:
                await self._store.request(worker, "rewrite", if_none=True)

    def _check_announced(self, record: WorkerRecord, asked_at: float) -> None:
        """Find out whether the journal has failed to bring a revision that the store has."""
        worker = record.worker
        if worker in self.workers.own:
            return
        known = self.workers.remote.get(worker)
        if not self.with_blocks:
            if known is None or known.record.model != record.model:
                self.workers.add(record, record.revision, 0)
            else:
                known.record, known.revision, known.target_revision = record, record.revision, 0
        elif known is None or known.record.generation != record.generation:
            self.workers.to_reload.add(worker)  # unless the journal brings it at once
        elif known.revision >= known.announced_revision:
            known.announced_revision, known.announced_at = record.revision, asked_at
        elif self._caught_up.get(self._store.layout.home(worker), 0.0) > known.announced_at:
            # Everything written by then was read; the entry came while this replica owned it.
            self.workers.to_reload.add(worker)

    def _on_failure(self, error: StoreError) -> None:
        if self.failures.record(error):
            _log.warning("copy_stuck", kind=error.kind, detail=str(error))
