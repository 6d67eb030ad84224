"""This replica's workers, as they are written to the store: absolute, numbered and fenced.

One round trip writes what has changed of every worker since the round before, and with it how far
its stream had got and how far that can be trusted: on one server all at once or nothing. On a
cluster a worker's home has the record, and other shards some of its bits, each with the number of
what was written there last; a number that is not as it was written here means that the store has
lost something, and then everything is written again, into a new generation.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING, Protocol

import structlog

from indexer import StableHolderIds, TrustState, TrustStatus
from store.errors import StoreError
from store.layout import worker_name
from store.write.write_batch import make_write_batch

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from indexer import Place, ReplicatedIndex, Worker
    from store.records import HandoverState
    from store.store import Acquired, Store
    from store.write.write_batch import OwnedWorker, WriteBatch

_MOST_AT_ONCE = 16_384  # hashes of a worker in one round
_MOST_NOTED = 1_000_000  # of a worker while the store is away
_BACKOFF_FIRST, _BACKOFF_MOST = 0.05, 1.0
_COPYING = "copying"

_log = structlog.get_logger("kvatlas.store")


class Streams(Protocol):
    """The streams of this replica's workers."""

    def trust_status(self, worker: Worker) -> TrustStatus:
        """How much to trust what is claimed of the worker."""
        ...

    def dump(self, worker: Worker) -> dict[str, Any] | None:
        """What another owner needs to go on with the stream, None if nobody could."""
        ...

    def on_fenced(self, worker: Worker) -> None:
        """Another replica owns the worker now."""
        ...


class Writer:
    """Writes what `index` notes of the workers that are owned here.

    live: replicas, as far as known. failures: of calls, by kind. failing: the kind of the newest
    failure, "" if the last round was well.
    """

    def __init__(
        self,
        store: Store,
        index: ReplicatedIndex,
        replica: str,
        streams: Streams,
    ) -> None:
        self._store = store
        self._index = index
        self._replica = replica
        self._streams = streams
        self.live_replicas: Collection[str] = ()
        self.owned: dict[Worker, OwnedWorker] = {}
        self.failures: Counter[str] = Counter()
        self.failing = ""
        self.rounds = 0
        self._wake_event = asyncio.Event()
        self._round_done = asyncio.Condition()
        self._writing = asyncio.Lock()
        self._backoff = _BACKOFF_FIRST

    # Owning

    def add(self, written: OwnedWorker, owned: Acquired, state: HandoverState | None) -> None:
        """The worker is this replica's from now on; it has joined the index.

        state: as its last owner left it, with all that was written in the index; None: nothing is
        in the store.
        """
        written.epoch, written.generation = owned.epoch, owned.generation
        written.revision = owned.revision
        if state is not None and not owned.former:
            written.bits, written.retired_bits = state.bits, state.retired_bits
            written.shard_stamps, written.registry = state.shard_stamps, state.registry
            written.possible_stamps = {
                shard: {value} for shard, value in state.shard_stamps.items()
            }
            self._index.track(written.worker, state.holder_ids)
        else:
            self._index.track(written.worker, StableHolderIds())
            self._index.requeue_all(written.worker)
        self.owned[written.worker] = written
        self.wake()

    def remove(self, worker: Worker) -> OwnedWorker | None:
        """Write nothing of the worker any more."""
        self._index.untrack(worker)
        return self.owned.pop(worker, None)

    def wake(self) -> None:
        """Something may have changed."""
        self._wake_event.set()

    async def flushed(self, worker: Worker) -> None:
        """Wait until all that is noted now of the worker is written, or it is owned no more."""
        async with self._round_done:
            await self._round_done.wait_for(
                lambda: worker not in self.owned or not self._has_changes(self.owned[worker])
            )

    # Rounds

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self._wake_event.wait()
            self._wake_event.clear()
            try:
                async with self._writing:
                    await self._write_changes()
            except Exception:  # noqa: BLE001 - the next round may be better
                _log.exception("round_failed")
                self._on_failure(StoreError("internal", "see above"))
            async with self._round_done:
                self._round_done.notify_all()
            if self.failing:
                self._wake_event.set()
                await asyncio.sleep(self._backoff * random.uniform(0.5, 1.0))  # noqa: S311
                self._backoff = min(2 * self._backoff, _BACKOFF_MOST)
            else:
                self._backoff = _BACKOFF_FIRST

    async def verify(self) -> None:
        """Write again what the store has lost since it was written. Raises StoreError."""
        async with self._writing:
            bulletins = await self._store.shard_statuses()
            for of in self.owned.values():
                self._check_stamps(of, [bulletin.applied for bulletin in bulletins])
                if of.registry not in ("", bulletins[0].registry):
                    of.needs_rewrite = True
                    self.wake()

    def _check_stamps(self, of: OwnedWorker, applied: list[dict[str, str]]) -> None:
        name, home = worker_name(of.worker), self._store.layout.home(of.worker)
        if of.revision and applied[home].get(name) != f"{of.epoch}:{of.revision}":
            of.last_written = None  # a write will tell what has happened
            self.wake()
        for shard, stamps in of.possible_stamps.items():
            if applied[shard].get(name) not in stamps:
                of.needs_rewrite = True
                self.wake()

    async def write(self) -> bool:
        """Write what there is, in one round; whether all went well."""
        async with self._writing:
            await self._write_changes()
        return not self.failing

    async def write_all(self, of: OwnedWorker) -> bool:
        """Write until the store has all there is of a worker; False if it cannot be done now."""
        while self.owned.get(of.worker) is of and self._has_changes(of):
            if not await self.write():
                return False
        return True

    def _has_changes(self, of: OwnedWorker) -> bool:
        noted = self._index.pending_count(of.worker)
        if noted > _MOST_NOTED:
            self._index.track(of.worker, StableHolderIds())  # forgets what was noted
            of.needs_rewrite = True
        return (
            bool(noted)
            or of.needs_rewrite
            or of.in_doubt
            or self._streams.trust_status(of.worker) != of.last_written
        )

    async def _write_changes(self) -> None:
        news = [of for of in self.owned.values() if self._has_changes(of)]
        if not news:
            return
        self.rounds += 1
        try:
            for of in news:
                if of.needs_rewrite:
                    await self._start_generation(of)
                await self._allocate_bits(of)
        except StoreError as error:
            self._on_failure(error)
            return
        self.failing = ""
        await self._send_batches(
            [
                self._make_batch(of)
                for of in news
                if self.owned.get(of.worker) is of
                and not of.needs_rewrite
                and self._has_all_bits(of)
            ]
        )
        if any(self.owned.get(of.worker) is of and self._has_changes(of) for of in news):
            self.wake()

    async def _send_batches(self, flushes: list[WriteBatch]) -> None:
        calls = [call for flush in flushes for call in flush.calls]
        try:
            answers = await self._store.call_all(calls)
        except StoreError as error:
            answers = [error] * len(calls)
        except BaseException:
            for flush in flushes:  # what was taken must not be lost
                flush.worker.in_doubt = True
                self._requeue(flush)
            raise
        at = 0
        for flush in flushes:
            self._handle_answers(flush, answers[at : at + len(flush.calls)])
            at += len(flush.calls)

    async def _start_generation(self, of: OwnedWorker) -> None:
        owned = await self._store.acquire(
            of.worker, of.model, self._replica, self.live_replicas, afresh=True
        )
        if self.owned.get(of.worker) is not of:
            return
        if isinstance(owned, str):
            self._on_fenced(of)
            return
        of.needs_rewrite = of.in_doubt = False
        of.epoch, of.generation, of.revision = owned.epoch, owned.generation, owned.revision
        for known in (of.bits, of.retired_bits, of.shard_stamps, of.possible_stamps):
            known.clear()
        of.registry = ""
        of.last_written = None
        self._index.track(of.worker, StableHolderIds())
        self._index.requeue_all(of.worker)
        _log.info("worker_written_again", pod=of.worker.pod, rank=of.worker.rank)

    def _scored_holder_ids(self, of: OwnedWorker) -> dict[int, Place]:
        """Seat -> place of those that can count in scores."""
        seats = self._index.holder_ids_of(of.worker)
        return {} if seats is None else seats.scored()

    def _has_all_bits(self, of: OwnedWorker) -> bool:
        return all(seat in of.bits for seat in self._scored_holder_ids(of))

    async def _allocate_bits(self, of: OwnedWorker) -> None:
        wanted = [seat for seat in self._scored_holder_ids(of) if seat not in of.bits]
        if wanted and not of.needs_rewrite:
            generation = of.generation
            labels = [of.bit_label(seat) for seat in wanted]
            registry, slots = await self._store.allocate_bits(of.model, labels)
            if of.generation != generation:
                return
            if of.registry not in ("", registry):
                of.needs_rewrite = True  # what was allotted before is forgotten
                return
            of.registry = registry
            of.bits.update(zip(wanted, slots, strict=True))

    def _make_batch(self, of: OwnedWorker) -> WriteBatch:
        changes = self._index.drain_changes(of.worker, _MOST_AT_ONCE)
        status, dump = self._streams.trust_status(of.worker), None
        if self._index.pending_count(of.worker):  # the rest comes next
            status = TrustStatus(TrustState.RECOVERING, _COPYING, as_of=status.as_of)
        else:
            dump = self._streams.dump(of.worker)
        seats = self._index.holder_ids_of(of.worker) or StableHolderIds()
        cache = self._index.layout_of(of.worker)
        return make_write_batch(
            self._store.layout, self._replica, of, cache, seats, changes, status, dump
        )

    def _handle_answers(self, flush: WriteBatch, answers: list[Any]) -> None:
        of = flush.worker
        if self.owned.get(of.worker) is not of:
            return
        home, *others = answers
        written = True
        for shard, answer in zip(flush.other_shards, others, strict=True):
            stamp = flush.record.shard_stamps[shard]
            if isinstance(answer, StoreError):
                of.possible_stamps.setdefault(shard, set()).add(stamp)
                written = False
            elif answer[0] == b"OK":
                of.possible_stamps[shard] = {stamp}
            else:
                of.needs_rewrite = True
        if isinstance(home, StoreError):
            of.in_doubt = True
            self._requeue(flush)
            self._on_failure(home)
        elif home[0] == b"OK":
            of.revision += 1
            of.shard_stamps = flush.record.shard_stamps
            of.last_written, of.in_doubt, of.record = flush.record.status, False, flush.record
            if not written:
                self._requeue(flush)
                self._on_failure(next(a for a in others if isinstance(a, StoreError)))
        elif home[0] == b"FENCED":
            self._on_fenced(of)
        elif of.in_doubt and int(home[1]) == of.revision + 1:
            of.revision += 1  # what was not answered had come through
            of.in_doubt = False
            self._requeue(flush)
        else:
            of.needs_rewrite = True

    def _requeue(self, flush: WriteBatch) -> None:
        if flush.changes is not None:
            self._index.requeue(flush.worker.worker, flush.changes.names, flush.changes.keys)

    def _on_fenced(self, of: OwnedWorker) -> None:
        self.remove(of.worker)
        _log.info("worker_owned_elsewhere", pod=of.worker.pod, rank=of.worker.rank)
        self._streams.on_fenced(of.worker)

    def _on_failure(self, error: StoreError) -> None:
        self.failures[error.kind] += 1
        if self.failing != error.kind:
            _log.warning("store_failed", kind=error.kind, detail=str(error))
        self.failing = error.kind
