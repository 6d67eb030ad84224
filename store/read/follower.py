"""The workers of other replicas, as a copy in this one's memory, fed by the store's journal.

A worker is loaded once from its pages, and then followed by the numbers of the journal's entries:
one that is missing, or of another generation, has it loaded again. Entries are absolute, so those
that the pages had already are put again without harm; until the last of them has come the worker
is said to be *loading*. Without a copy (`with_blocks` false) only standings and reports are kept.
"""

from __future__ import annotations

import asyncio
import random
import time
from array import array
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from indexer import StableHolderIds
from store.errors import StoreError
from store.layout import worker_name
from store.records import HandoverState, JournalEntry, WorkerRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from indexer import ReplicatedIndex, Worker
    from store.store import ShardStatus, Store

_ENTRIES_AT_A_TIME = 100
_WAIT = 0.25
_MISSING_SECONDS = 5.0  # owners look every second whether the store has everything
_BACKOFF_FIRST, _BACKOFF_MOST = 0.05, 1.0
_SLICE_SECONDS = 0.0005

_log = structlog.get_logger("kvatlas.store")


@dataclass
class RemoteWorker:
    """A worker that another replica owns.

    revision: of the newest entry put. target: the one from which on the blocks are as they should
    be. whole: whether there is all that entries are put onto. thinned: blocks are missing here for
    want of memory. missing_since: when the store was first found not to know the worker, None if it
    does. report: as its owner renewed it at `reported_at` (`time.monotonic`), empty if it never
    has. told: the revision that a bulletin told of, which was asked for at `told_at`.
    """

    record: WorkerRecord
    revision: int
    target_revision: int
    complete: bool = True
    evicted_locally: bool = False
    missing_since: float | None = None
    report: bytes = b""
    reported_at: float = 0.0
    announced_revision: int = 0
    announced_at: float = 0.0

    @property
    def loading(self) -> bool:
        """Whether blocks may be missing, or too many."""
        return not self.complete or self.revision < self.target_revision


class Follower:
    """Follows the workers of others; see the module.

    ours: this replica's workers, which are none of its business. followed: all others. loads,
    entries: how many workers were loaded, and entries put. failures: of calls, by kind. noticed:
    told when blocks were put. refreshed_at: when the bulletins were read last (`time.monotonic`).
    """

    def __init__(self, store: Store, index: ReplicatedIndex, *, with_blocks: bool) -> None:
        self._store = store
        self._index = index
        self.with_blocks = with_blocks
        self.own_workers: set[Worker] = set()
        self.remote_workers: dict[Worker, RemoteWorker] = {}
        self.shard_statuses: list[ShardStatus] = []
        self.refreshed_at: float | None = None
        self.failures: Counter[str] = Counter()
        self.on_applied: Callable[[], None] = lambda: None
        self.loads = 0
        self.entries = 0
        self._progressed = asyncio.Event()
        self._caught_up: dict[int, float] = {}
        self._to_reload: set[Worker] = set()

    # How good it is

    def seconds_behind(self, now: float) -> float | None:
        """Seconds since it was known to be as the store; None if it never was."""
        shards = range(self._store.layout.shards)
        if not all(shard in self._caught_up for shard in shards):
            return None
        return now - min(self._caught_up[shard] for shard in shards)

    @property
    def is_warm(self) -> bool:
        """Whether every worker was loaded."""
        return self.seconds_behind(time.monotonic()) is not None and not any(
            followed.loading for followed in self.remote_workers.values()
        )

    async def wait_for_progress(self) -> None:
        """Wait until more of the store is here, or it is known to be all."""
        self._progressed.clear()
        await self._progressed.wait()

    # Owners come and go

    def has_revision(self, worker: Worker, generation: str, revision: int) -> bool:
        """Whether the worker is here as it was then."""
        known = self.remote_workers.get(worker)
        return (
            self.with_blocks
            and known is not None
            and not known.loading
            and (known.record.generation, known.revision) == (generation, revision)
            and worker not in self._to_reload
        )

    def release(self, worker: Worker) -> None:
        """The worker is this replica's from now on."""
        self._to_reload.discard(worker)
        self.remote_workers.pop(worker, None)

    def adopt(self, worker: Worker, standing: WorkerRecord, revision: int) -> None:
        """The worker is another replica's from now on; it is here as of `revision`."""
        self.own_workers.discard(worker)
        self.remote_workers[worker] = RemoteWorker(standing, revision, revision)

    def discard(self, worker: Worker) -> None:
        """The worker is another replica's from now on, and to be loaded."""
        self.own_workers.discard(worker)
        self._index.leave(worker)
        self._to_reload.add(worker)

    # Following

    async def follow_shard(self, shard: int) -> None:
        """Follow one shard for ever."""
        wait, position = _BACKOFF_FIRST, b""
        while True:
            try:
                if not position:
                    position = await self._begin(shard)
                position = await self._follow(shard, position)
            except StoreError as error:
                self._on_failure(error)
            except Exception:  # noqa: BLE001 - what is here is not to be trusted, but can be again
                _log.exception("copy_failed", shard=shard)
                self._reload_shard(shard)
                position = b""
            else:
                wait = _BACKOFF_FIRST
                continue
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311
            wait = min(2 * wait, _BACKOFF_MOST)

    async def _begin(self, shard: int) -> bytes:
        bulletin = (await self._store.shard_statuses())[shard]
        for standing in bulletin.records.values():
            await self._load(standing)
        return bulletin.newest

    async def _follow(self, shard: int, position: bytes) -> bytes:
        for worker in [w for w in self._to_reload if self._store.layout.home(w) == shard]:
            await self._reload(worker)
        asked_at = time.monotonic()
        key = self._store.layout.prefix(shard) + "journal"
        entries = await self._store.server.read_journal(key, position, _ENTRIES_AT_A_TIME, _WAIT)
        slice_end = time.perf_counter() + _SLICE_SECONDS
        for entry_id, blob in entries:
            await self._apply(JournalEntry.unpack(blob))
            position = entry_id
            if time.perf_counter() > slice_end:
                await asyncio.sleep(0)
                slice_end = time.perf_counter() + _SLICE_SECONDS
        if len(entries) < _ENTRIES_AT_A_TIME:
            self._caught_up[shard] = asked_at
        self._progressed.set()
        return position

    def _reload_shard(self, shard: int) -> None:
        for worker, followed in self.remote_workers.items():
            if self._store.layout.home(worker) == shard:
                followed.complete = False
                self._to_reload.add(worker)

    async def _apply(self, entry: JournalEntry) -> None:
        worker, standing = entry.worker, entry.standing
        if worker in self.own_workers:
            return
        if entry.removed or standing is None:
            self.remove(worker)
            return
        known = self.remote_workers.get(worker)
        same = known is not None and known.record.generation == standing.generation
        if standing.revision == 1 and not same:
            self._add_remote_worker(standing, 0, 0)
            known = self.remote_workers[worker]
        elif not (known and known.complete and same) or standing.revision > known.revision + 1:
            await self._load(standing)
            return
        elif standing.revision <= known.revision:
            return
        self.entries += 1
        if self.with_blocks:
            words = (entry.names, entry.counts, entry.rows)
            self._index.apply(worker, standing.layout, entry.holder_ids, *words)
            self.on_applied()
        known.record, known.revision = standing, standing.revision

    def remove(self, worker: Worker) -> None:
        """The worker never was."""
        if self.remote_workers.pop(worker, None) is not None:
            self._index.leave(worker)
        self._to_reload.discard(worker)

    def _add_remote_worker(self, standing: WorkerRecord, revision: int, target: int) -> None:
        worker = standing.worker
        former = self.remote_workers.get(worker)
        self._index.leave(worker)
        self._index.join(worker, standing.model)
        followed = self.remote_workers[worker] = RemoteWorker(standing, revision, target)
        if former is not None:
            followed.report, followed.reported_at = former.report, former.reported_at

    async def _reload(self, worker: Worker) -> None:
        bulletin = (await self._store.shard_statuses())[self._store.layout.home(worker)]
        standing = bulletin.records.get(worker_name(worker))
        if standing is not None:
            await self._load(standing)
        elif worker not in self.own_workers:
            self.remove(worker)
        self._to_reload.discard(worker)

    async def _load(self, standing: WorkerRecord) -> None:
        """Read all of a worker. `standing` is not newer than what will be read."""
        worker = standing.worker
        if worker in self.own_workers:
            return
        self._add_remote_worker(standing, standing.revision, 0)
        if not self.with_blocks:
            return
        self.remote_workers[worker].complete = False  # until all has been read, whatever goes wrong
        home = self._store.layout.home(worker)
        rows = await self.read_rows(home, standing.generation)
        state = await self._store.handover_state(worker)
        if worker in self.own_workers or worker not in self.remote_workers:
            return
        if state:
            left = HandoverState.unpack(state)
            self._index.apply(worker, left.layout, left.holder_ids, *rows)
        else:
            self._index.apply(worker, standing.layout, StableHolderIds(), *rows)
        self.on_applied()
        bulletin = (await self._store.shard_statuses())[home]
        newest = bulletin.records.get(worker_name(worker))
        known = self.remote_workers.get(worker)
        if newest is None or known is None or newest.generation != standing.generation:
            self._to_reload.add(worker)
        else:
            known.target_revision, known.complete = newest.revision, True
            self.loads += 1

    async def read_rows(
        self, home: int, generation: str
    ) -> tuple[array[int], array[int], array[int]]:
        """All names, counts and rows of a generation; see `indexer.Changes`."""
        names, counts, rows = array("Q"), array("H"), array("Q")
        for name, of_name in await self._store.read_generation(home, generation):
            names.frombytes(name)
            counts.append(len(of_name) // 16)
            rows.frombytes(of_name)
        return names, counts, rows

    # Standings and reports, every second

    async def refresh(self) -> None:
        """Read the bulletins. Raises StoreError."""
        asked_at = time.monotonic()
        bulletins = self.shard_statuses = await self._store.shard_statuses()
        self.refreshed_at, now = asked_at, time.monotonic()
        standings = {s.worker: s for b in bulletins for s in b.records.values()}
        for worker, followed in list(self.remote_workers.items()):
            if worker in standings or worker in self.own_workers:
                followed.missing_since = None
            elif followed.missing_since is None:
                followed.missing_since = now  # the store may have forgotten: its owner will tell it
            elif now - followed.missing_since > _MISSING_SECONDS:
                self.remove(worker)
        self._to_reload.difference_update(w for w in list(self._to_reload) if w not in standings)
        for standing in standings.values():
            self._check_announced(standing, asked_at)
        for name, report in ((n, r) for b in bulletins for n, r in b.reports.items()):
            self._report(name, report, now)

    def _check_announced(self, standing: WorkerRecord, asked_at: float) -> None:
        worker = standing.worker
        if worker in self.own_workers:
            return
        known = self.remote_workers.get(worker)
        if not self.with_blocks:
            if known is None or known.record.model != standing.model:
                self._add_remote_worker(standing, standing.revision, 0)
            else:
                known.record, known.revision, known.target_revision = standing, standing.revision, 0
        elif known is None or known.record.generation != standing.generation:
            self._to_reload.add(worker)  # unless the journal says so at once
        elif known.revision >= known.announced_revision:
            known.announced_revision, known.announced_at = standing.revision, asked_at
        elif self._has_read(worker, since=known.announced_at):
            self._to_reload.add(worker)  # an entry was passed over while the worker was ours

    def _has_read(self, worker: Worker, since: float) -> bool:
        """Whether all entries about the worker were read that had been written by then."""
        return self._caught_up.get(self._store.layout.home(worker), 0.0) > since

    def _report(self, name: str, report: bytes, now: float) -> None:
        for worker, followed in self.remote_workers.items():
            if worker_name(worker) == name:
                if followed.report != report:
                    followed.report, followed.reported_at = report, now
                return

    def _on_failure(self, error: StoreError) -> None:
        if not self.failures[error.kind]:
            _log.warning("copy_stuck", kind=error.kind, detail=str(error))
        self.failures[error.kind] += 1
