"""This service as one of several replicas: whose events are applied here, and who is told.

Each second: a beat keeps this replica's lease and tells who else is live; every source that can be
connected to is listened to by one of them, by rendezvous; reports of our workers are renewed, those
of others are read, and what the store has lost of ours is written again. A worker is taken from the
store with all that is known of it before its events are applied here, and given up in good order
when another replica is to have its source. The writer fences: who was taken for dead and is not
finds its writes refused, and lets go.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

import structlog

from service.shares import Shares
from service.workers import SharedWorkers
from store import (
    Claim,
    Cleaner,
    Copy,
    StoreError,
    Succession,
    Writer,
    chosen,
    name_of,
    new_identity,
    older_versions,
    packed,
    retire,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from indexer import KeyScheme, SharedIndex, Worker
    from kvevents import Intake
    from service.sections import StoreSection
    from store import Store

_SIGN_SECONDS = 1.0
_GARBAGE_SECONDS = 60.0
_LAST_SECONDS = 5.0

_log = structlog.get_logger("kvatlas.service")


class Replica:
    """One of several, within an `async with` block; `intake` is given by `listen_with` before it.

    name: of this replica. live: identities of all that are. index: this process's part. workers:
    all of them, whoever applies their events. failures: of calls of the store, by kind. copy,
    writer: see `store`.
    """

    def __init__(
        self,
        store: Store,
        index: SharedIndex,
        section: StoreSection,
        scheme_of: Callable[[str], KeyScheme],
        stale_after: float,
    ) -> None:
        self.name = section.replica_name
        self._identity = new_identity(self.name)
        self.store = store
        self.index = index
        self._section = section
        self._scheme_of = scheme_of
        self._stale_after = stale_after
        self.copy = Copy(store, index, with_blocks=section.copy_blocks)
        self.writer = Writer(store, index, self._identity, self)
        self._succession = Succession(
            store, index, self.writer, self.copy, self._identity, self._scheme_name
        )
        self.shares = Shares(
            self.name, store, self.writer, self.copy, self._succession, self._failed
        )
        self._cleaner = Cleaner(store, index, self.writer)
        self.live: set[str] = set()
        self.failures: Counter[str] = Counter()
        self._garbage: dict[str, float] = {}
        self._settled = asyncio.Event()
        self._beaten_at = self._presumed_until = 0.0
        self._presumed: set[str] = set()
        self._failing = ""

    def listen_with(self, intake: Intake) -> None:
        """What receives and applies events."""
        self._intake = intake
        self._ingest = intake.ingest
        self.shares.share_out(intake)
        self.copy.noticed = intake.ingest.notice_evictions
        self.workers = SharedWorkers(
            intake.ingest.streams,
            self.copy,
            self._section.max_lag_seconds,
            self._stale_after,
            self._scheme_name,
        )

    def _scheme_name(self, model: str) -> str:
        return self._scheme_of(model).name

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._withdraw)
            jobs = {
                "write": self.writer.run(),
                "take over": self._take_over(),
                "beat": self._every(
                    min(self._section.lease_seconds / 3, _SIGN_SECONDS), self._beat
                ),
                "sign": self._every(_SIGN_SECONDS, self._sign),
                "clean": self._every(_SIGN_SECONDS, self._clean),
            }
            for shard in range(self.store.layout.shards):
                if self._section.copy_blocks:
                    jobs[f"follow {shard}"] = self.copy.run(shard)
            self._tasks = [asyncio.create_task(job, name=name) for name, job in jobs.items()]
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def ready(self) -> None:
        """Wait until answers are as good as they get, or it has taken too long."""
        try:
            async with asyncio.timeout(self._section.ready_seconds):
                await self._settled.wait()
                while self._section.copy_blocks and not self.copy.is_warm:
                    await asyncio.wait_for(self.copy.moved(), 1.0)
        except TimeoutError:
            _log.warning("not_warm", detail="ready without a copy of the others' blocks")

    async def _take_over(self) -> None:
        await self._settled.wait()
        await self.shares.run()

    async def _every(self, seconds: float, do: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await do()
            except StoreError as error:
                self._failed(error)
            except Exception:  # noqa: BLE001 - the next time may be better
                _log.exception("replica_failed")
            await asyncio.sleep(seconds)

    def _failed(self, error: StoreError) -> None:
        self.failures[error.kind] += 1
        if self._failing != error.kind:
            _log.warning("store_fails", kind=error.kind, detail=str(error))
        self._failing = error.kind

    # Who is live, and who listens to what

    async def _beat(self) -> None:
        before = time.monotonic()
        first = not self._settled.is_set()
        live = set(await self.store.beat(self._identity, self._section.lease_seconds, first=first))
        live |= self._presumed_live(before)
        self._failing = ""
        if live != self.live:
            _log.info("replicas_live", replicas=sorted({name_of(replica) for replica in live}))
        self.live = live
        self.writer.live = self.workers.live = self.shares.live = live
        if first:
            await self.store.settle_layout()
            await self.copy.refresh()
            if policy := await self.store.server.drops_keys():
                detail = "it may drop blocks that are held: set maxmemory-policy noeviction"
                _log.warning("store_drops_keys", policy=policy, detail=detail)
        await self.shares.settle()
        await self._succession.release_abandoned()
        self._settled.set()

    def _presumed_live(self, now: float) -> set[str]:
        """Whoever was live before the store was away has a lease's time to beat again."""
        lease = self._section.lease_seconds
        if now - self._beaten_at > lease / 2 and self._settled.is_set():
            self._presumed, self._presumed_until = set(self.live), now + lease
        self._beaten_at = now
        return self._presumed if now < self._presumed_until else set()

    async def _withdraw(self) -> None:
        """Give up everything in good order, so that others go on at once."""
        stopped = [task for task in self._tasks if task.get_name() != "write"]
        for task in stopped:
            task.cancel()
        await asyncio.gather(*stopped, return_exceptions=True)
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                await self.shares.withdraw()
                await self.store.retreat(self._identity)
        except (StoreError, TimeoutError) as error:
            _log.warning("not_withdrawn", detail=str(error))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # What the writer asks; see `store.Writer`

    def claim(self, worker: Worker) -> Claim:
        """See `Streams.claim`."""
        stream = self._ingest.streams.get(worker)
        if stream is None:
            return Claim("recovering", "changing_hands", None)
        state, reason, _, as_of = stream.standing(time.monotonic())
        return Claim(state.value, reason, as_of)

    def dump(self, worker: Worker) -> dict[str, Any] | None:
        """See `Streams.dump`."""
        stream = self._ingest.streams.get(worker)
        return None if stream is None else stream.dump()

    def lost(self, worker: Worker) -> None:
        """See `Streams.lost`."""
        self._ingest.hand_over(worker)
        self._succession.lost(worker)

    # Every second

    async def _sign(self) -> None:
        if not self._settled.is_set():
            return
        now = time.monotonic()
        reports = {}
        for blocks in self.index.workers():
            of = self.writer.owned.get(blocks.worker)
            stream = self._ingest.streams.get(blocks.worker)
            if of is not None and stream is not None:
                report = {**asdict(stream.report(now)), "blocks": blocks.by_tier}
                reports[blocks.worker] = (of.epoch, packed(report))
        wishes = await self.store.sign(reports)
        for worker in list(self._ingest.streams):
            if wishes.get(f"{worker.pod}/{worker.rank}") == "resync":
                self._ingest.streams[worker].resync()
        await self.copy.refresh()
        await self.writer.check()
        self.writer.wake()

    async def _clean(self) -> None:
        for of in list(self.writer.owned.values()):
            if of.retired:
                await self._cleaner.clean_worker(of)
        now = time.monotonic()
        found = {garbage.generation: garbage for b in self.copy.bulletins for garbage in b.garbage}
        self._garbage = {name: self._garbage.get(name, now) for name in found}
        for name, garbage in found.items():
            is_due = now - self._garbage[name] > _GARBAGE_SECONDS
            if is_due and chosen(name, self.live) == self._identity:
                await self._cleaner.drop(garbage)
        for old in await older_versions(self.store):
            who = chosen(f"layout {old.layout.version}", self.live)
            if who == self._identity and await retire(old):
                _log.info("layout_retired", version=old.layout.version)

    # What an operator wants of workers that are not ours

    async def forget(self, pod: str) -> bool:
        """The pod is gone, whoever applies its events. Raises StoreError."""
        followed = [worker for worker in self.copy.followed if worker.pod == pod]
        for worker in followed:
            await self.store.leave(worker, None)
            self.copy.drop(worker)
        return self._ingest.forget(pod) or bool(followed)

    async def resync(self, pod: str) -> list[tuple[Worker, bool]]:
        """See `Ingest.resync`; workers of others are told their owners. Raises StoreError."""
        found = await self._intake.resync(pod)
        now = time.monotonic()
        for worker in [worker for worker in self.copy.followed if worker.pod == pod]:
            await self.store.wish(worker, "resync")
            found.append((worker, bool(self.workers.report(worker, now).replay_endpoint)))
        return found
