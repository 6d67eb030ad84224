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

from indexer import Seats
from store.errors import StoreError
from store.flush import make_flush
from store.layout import worker_name
from store.records import Claim

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from indexer import Place, SharedIndex, Worker
    from store.flush import Flush, Written
    from store.records import State
    from store.store import Owned, Store

_MOST_AT_ONCE = 16_384  # hashes of a worker in one round
_MOST_NOTED = 1_000_000  # of a worker while the store is away
_BACKOFF_FIRST, _BACKOFF_MOST = 0.05, 1.0
_COPYING = "copying"

_log = structlog.get_logger("kvatlas.store")


class Streams(Protocol):
    """The streams of this replica's workers."""

    def claim(self, worker: Worker) -> Claim:
        """How much to trust what is claimed of the worker."""
        ...

    def dump(self, worker: Worker) -> dict[str, Any] | None:
        """What another owner needs to go on with the stream, None if nobody could."""
        ...

    def lost(self, worker: Worker) -> None:
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
        index: SharedIndex,
        replica: str,
        streams: Streams,
    ) -> None:
        self._store = store
        self._index = index
        self._replica = replica
        self._streams = streams
        self.live: Collection[str] = ()
        self.owned: dict[Worker, Written] = {}
        self.failures: Counter[str] = Counter()
        self.failing = ""
        self.rounds = 0
        self._woken = asyncio.Event()
        self._done = asyncio.Condition()
        self._writing = asyncio.Lock()
        self._wait = _BACKOFF_FIRST

    # Owning

    def own(self, written: Written, owned: Owned, state: State | None) -> None:
        """The worker is this replica's from now on; it has joined the index.

        state: as its last owner left it, with all that was written in the index; None: nothing is
        in the store.
        """
        written.epoch, written.generation = owned.epoch, owned.generation
        written.revision = owned.revision
        if state is not None and not owned.former:
            written.slots, written.retired = state.slots, state.retired
            written.vector, written.registry = state.vector, state.registry
            written.applied = {shard: {value} for shard, value in state.vector.items()}
            self._index.note(written.worker, state.seats)
        else:
            self._index.note(written.worker, Seats())
            self._index.note_everything(written.worker)
        self.owned[written.worker] = written
        self.wake()

    def disown(self, worker: Worker) -> Written | None:
        """Write nothing of the worker any more."""
        self._index.note_no_more(worker)
        return self.owned.pop(worker, None)

    def wake(self) -> None:
        """Something may have changed."""
        self._woken.set()

    async def settled(self, worker: Worker) -> None:
        """Wait until all that is noted now of the worker is written, or it is owned no more."""
        async with self._done:
            await self._done.wait_for(
                lambda: worker not in self.owned or not self._news(self.owned[worker])
            )

    # Rounds

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                async with self._writing:
                    await self._round()
            except Exception:  # noqa: BLE001 - the next round may be better
                _log.exception("round_failed")
                self._failed(StoreError("internal", "see above"))
            async with self._done:
                self._done.notify_all()
            if self.failing:
                self._woken.set()
                await asyncio.sleep(self._wait * random.uniform(0.5, 1.0))  # noqa: S311
                self._wait = min(2 * self._wait, _BACKOFF_MOST)
            else:
                self._wait = _BACKOFF_FIRST

    async def check(self) -> None:
        """Write again what the store has lost since it was written. Raises StoreError."""
        async with self._writing:
            bulletins = await self._store.bulletins()
            for of in self.owned.values():
                self._compare(of, [bulletin.applied for bulletin in bulletins])
                if of.registry not in ("", bulletins[0].registry):
                    of.afresh = True
                    self.wake()

    def _compare(self, of: Written, applied: list[dict[str, str]]) -> None:
        name, home = worker_name(of.worker), self._store.layout.home(of.worker)
        if of.revision and applied[home].get(name) != f"{of.epoch}:{of.revision}":
            of.told = None  # a write will tell what has happened
            self.wake()
        for shard, stamps in of.applied.items():
            if applied[shard].get(name) not in stamps:
                of.afresh = True
                self.wake()

    async def write(self) -> bool:
        """Write what there is, in one round; whether all went well."""
        async with self._writing:
            await self._round()
        return not self.failing

    async def write_all(self, of: Written) -> bool:
        """Write until the store has all there is of a worker; False if it cannot be done now."""
        while self.owned.get(of.worker) is of and self._news(of):
            if not await self.write():
                return False
        return True

    def _news(self, of: Written) -> bool:
        noted = self._index.noted(of.worker)
        if noted > _MOST_NOTED:
            self._index.note(of.worker, Seats())  # forgets what was noted
            of.afresh = True
        return bool(noted) or of.afresh or of.unsure or self._streams.claim(of.worker) != of.told

    async def _round(self) -> None:
        news = [of for of in self.owned.values() if self._news(of)]
        if not news:
            return
        self.rounds += 1
        try:
            for of in news:
                if of.afresh:
                    await self._begin_again(of)
                await self._allot(of)
        except StoreError as error:
            self._failed(error)
            return
        self.failing = ""
        await self._send(
            [
                self._flush(of)
                for of in news
                if self.owned.get(of.worker) is of and not of.afresh and self._all_have_slots(of)
            ]
        )
        if any(self.owned.get(of.worker) is of and self._news(of) for of in news):
            self.wake()

    async def _send(self, flushes: list[Flush]) -> None:
        calls = [call for flush in flushes for call in flush.calls]
        try:
            answers = await self._store.call_all(calls)
        except StoreError as error:
            answers = [error] * len(calls)
        except BaseException:
            for flush in flushes:  # what was taken must not be lost
                flush.of.unsure = True
                self._note_again(flush)
            raise
        at = 0
        for flush in flushes:
            self._conclude(flush, answers[at : at + len(flush.calls)])
            at += len(flush.calls)

    async def _begin_again(self, of: Written) -> None:
        owned = await self._store.acquire(
            of.worker, of.model, self._replica, self.live, afresh=True
        )
        if self.owned.get(of.worker) is not of:
            return
        if isinstance(owned, str):
            self._lose(of)
            return
        of.afresh = of.unsure = False
        of.epoch, of.generation, of.revision = owned.epoch, owned.generation, owned.revision
        for known in (of.slots, of.retired, of.vector, of.applied):
            known.clear()
        of.registry = ""
        of.told = None
        self._index.note(of.worker, Seats())
        self._index.note_everything(of.worker)
        _log.info("worker_written_again", pod=of.worker.pod, rank=of.worker.rank)

    def _scored_seats(self, of: Written) -> dict[int, Place]:
        """Seat -> place of those that can count in scores."""
        seats = self._index.seats_of(of.worker)
        return {} if seats is None else seats.scored()

    def _all_have_slots(self, of: Written) -> bool:
        return all(seat in of.slots for seat in self._scored_seats(of))

    async def _allot(self, of: Written) -> None:
        wanted = [seat for seat in self._scored_seats(of) if seat not in of.slots]
        if wanted and not of.afresh:
            generation = of.generation
            labels = [of.label(seat) for seat in wanted]
            registry, slots = await self._store.allot(of.model, labels)
            if of.generation != generation:
                return
            if of.registry not in ("", registry):
                of.afresh = True  # what was allotted before is forgotten
                return
            of.registry = registry
            of.slots.update(zip(wanted, slots, strict=True))

    def _flush(self, of: Written) -> Flush:
        changes = self._index.take(of.worker, _MOST_AT_ONCE)
        claim, dump = self._streams.claim(of.worker), None
        if self._index.noted(of.worker):  # the rest comes next
            claim = Claim("recovering", _COPYING, claim.as_of)
        else:
            dump = self._streams.dump(of.worker)
        seats = self._index.seats_of(of.worker) or Seats()
        cache = self._index.layout_of(of.worker)
        return make_flush(self._store.layout, self._replica, of, cache, seats, changes, claim, dump)

    def _conclude(self, flush: Flush, answers: list[Any]) -> None:
        of = flush.of
        if self.owned.get(of.worker) is not of:
            return
        home, *others = answers
        written = True
        for shard, answer in zip(flush.touched, others, strict=True):
            stamp = flush.standing.vector[shard]
            if isinstance(answer, StoreError):
                of.applied.setdefault(shard, set()).add(stamp)
                written = False
            elif answer[0] == b"OK":
                of.applied[shard] = {stamp}
            else:
                of.afresh = True
        if isinstance(home, StoreError):
            of.unsure = True
            self._note_again(flush)
            self._failed(home)
        elif home[0] == b"OK":
            of.revision += 1
            of.vector = flush.standing.vector
            of.told, of.unsure, of.standing = flush.standing.claim, False, flush.standing
            if not written:
                self._note_again(flush)
                self._failed(next(a for a in others if isinstance(a, StoreError)))
        elif home[0] == b"FENCED":
            self._lose(of)
        elif of.unsure and int(home[1]) == of.revision + 1:
            of.revision += 1  # what was not answered had come through
            of.unsure = False
            self._note_again(flush)
        else:
            of.afresh = True

    def _note_again(self, flush: Flush) -> None:
        if flush.changes is not None:
            self._index.note_again(flush.of.worker, flush.changes.names, flush.changes.keys)

    def _lose(self, of: Written) -> None:
        self.disown(of.worker)
        _log.info("worker_owned_elsewhere", pod=of.worker.pod, rank=of.worker.rank)
        self._streams.lost(of.worker)

    def _failed(self, error: StoreError) -> None:
        self.failures[error.kind] += 1
        if self.failing != error.kind:
            _log.warning("store_failed", kind=error.kind, detail=str(error))
        self.failing = error.kind
