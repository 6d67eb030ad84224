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

from indexer import TrustState, TrustStatus
from kvevents import dump_stream, report_of
from service.replication.assignment import SourceAssignment
from service.replication.worker_status import ReplicatedWorkers
from store import (
    Follower,
    GarbageCollector,
    StoreError,
    WorkerOwnership,
    Writer,
    new_replica_id,
    older_versions,
    pack,
    remove_layout,
    rendezvous_owner,
    replica_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from indexer import KeyScheme, ReplicatedIndex, Worker
    from kvevents import Listener
    from service.config import StoreSection
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
        index: ReplicatedIndex,
        section: StoreSection,
        scheme_of: Callable[[str], KeyScheme],
        stale_after: float,
    ) -> None:
        self.name = section.replica_name
        self._identity = new_replica_id(self.name)
        self.store = store
        self.index = index
        self._section = section
        self._scheme_of = scheme_of
        self._stale_after = stale_after
        self.follower = Follower(store, index, with_blocks=section.copy_blocks)
        self.writer = Writer(store, index, self._identity, self)
        self._ownership = WorkerOwnership(
            store, index, self.writer, self.follower, self._identity, self._scheme_name
        )
        self.assignment = SourceAssignment(
            self.name, store, self.writer, self.follower, self._ownership, self._on_failure
        )
        self._garbage_collector = GarbageCollector(store, index, self.writer)
        self.live_replicas: set[str] = set()
        self.failures: Counter[str] = Counter()
        self._garbage: dict[str, float] = {}
        self._registered = asyncio.Event()
        self._last_heartbeat = self._presumed_until = 0.0
        self._presumed_live_replicas: set[str] = set()
        self._failing = ""

    def listen_with(self, intake: Listener) -> None:
        """What receives and applies events."""
        self._intake = intake
        self._ingest = intake.router
        self.assignment.listen_with(intake)
        self.follower.on_applied = intake.router.mark_evicted
        self.workers = ReplicatedWorkers(
            intake.router.streams,
            self.follower,
            self._section.max_lag_seconds,
            self._stale_after,
            self._scheme_name,
        )

    def _scheme_name(self, model: str) -> str:
        return self._scheme_of(model).name

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._deregister)
            jobs = {
                "write": self.writer.run(),
                "take over": self._take_over(),
                "beat": self._every(
                    min(self._section.lease_seconds / 3, _SIGN_SECONDS), self._heartbeat
                ),
                "sign": self._every(_SIGN_SECONDS, self._renew_reports),
                "clean": self._every(_SIGN_SECONDS, self._collect_garbage),
            }
            for shard in range(self.store.layout.shards):
                if self._section.copy_blocks:
                    jobs[f"follow {shard}"] = self.follower.follow_shard(shard)
            self._tasks = [asyncio.create_task(job, name=name) for name, job in jobs.items()]
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def ready(self) -> None:
        """Wait until answers are as good as they get, or it has taken too long."""
        try:
            async with asyncio.timeout(self._section.ready_seconds):
                await self._registered.wait()
                while self._section.copy_blocks and not self.follower.is_warm:
                    await asyncio.wait_for(self.follower.wait_for_progress(), 1.0)
        except TimeoutError:
            _log.warning("not_warm", detail="ready without a copy of the others' blocks")

    async def _take_over(self) -> None:
        await self._registered.wait()
        await self.assignment.run()

    async def _every(self, seconds: float, do: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await do()
            except StoreError as error:
                self._on_failure(error)
            except Exception:  # noqa: BLE001 - the next time may be better
                _log.exception("replica_failed")
            await asyncio.sleep(seconds)

    def _on_failure(self, error: StoreError) -> None:
        self.failures[error.kind] += 1
        if self._failing != error.kind:
            _log.warning("store_fails", kind=error.kind, detail=str(error))
        self._failing = error.kind

    # Who is live, and who listens to what

    async def _heartbeat(self) -> None:
        before = time.monotonic()
        first = not self._registered.is_set()
        live = set(
            await self.store.heartbeat(self._identity, self._section.lease_seconds, first=first)
        )
        live |= self._presumed_live(before)
        self._failing = ""
        if live != self.live_replicas:
            _log.info("replicas_live", replicas=sorted({replica_name(replica) for replica in live}))
        self.live_replicas = live
        self.writer.live_replicas = self.workers.live_replicas = self.assignment.live = live
        if first:
            await self.store.register_layout()
            await self.follower.refresh()
            if policy := await self.store.server.drops_keys():
                detail = "it may drop blocks that are held: set maxmemory-policy noeviction"
                _log.warning("store_drops_keys", policy=policy, detail=detail)
        await self.assignment.assign_sources()
        await self._ownership.release_abandoned()
        self._registered.set()

    def _presumed_live(self, now: float) -> set[str]:
        """Whoever was live before the store was away has a lease's time to beat again."""
        lease = self._section.lease_seconds
        if now - self._last_heartbeat > lease / 2 and self._registered.is_set():
            self._presumed_live_replicas, self._presumed_until = (
                set(self.live_replicas),
                now + lease,
            )
        self._last_heartbeat = now
        return self._presumed_live_replicas if now < self._presumed_until else set()

    async def _deregister(self) -> None:
        """Give up everything in good order, so that others go on at once."""
        stopped = [task for task in self._tasks if task.get_name() != "write"]
        for task in stopped:
            task.cancel()
        await asyncio.gather(*stopped, return_exceptions=True)
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                await self.assignment.release_all()
                await self.store.deregister(self._identity)
        except (StoreError, TimeoutError) as error:
            _log.warning("not_withdrawn", detail=str(error))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # What the writer asks; see `store.Writer`

    def trust_status(self, worker: Worker) -> TrustStatus:
        """See `Streams.claim`."""
        stream = self._ingest.streams.get(worker)
        if stream is None:
            return TrustStatus(TrustState.RECOVERING, "changing_hands")
        return stream.trust_status(time.monotonic())._replace(silent=None)

    def dump(self, worker: Worker) -> dict[str, Any] | None:
        """See `Streams.dump`."""
        stream = self._ingest.streams.get(worker)
        return None if stream is None else dump_stream(stream)

    def on_fenced(self, worker: Worker) -> None:
        """See `Streams.lost`."""
        self._ingest.release(worker)
        self._ownership.on_lost(worker)

    # Every second

    async def _renew_reports(self) -> None:
        if not self._registered.is_set():
            return
        now = time.monotonic()
        reports = {}
        for blocks in self.index.workers():
            of = self.writer.owned.get(blocks.worker)
            stream = self._ingest.streams.get(blocks.worker)
            if of is not None and stream is not None:
                report = {**asdict(report_of(stream, now)), "blocks": blocks.by_tier}
                reports[blocks.worker] = (of.epoch, pack(report))
        wishes = await self.store.renew_reports(reports)
        for worker in list(self._ingest.streams):
            if wishes.get(f"{worker.pod}/{worker.rank}") == "resync":
                self._ingest.streams[worker].resync()
        await self.follower.refresh()
        await self.writer.verify()
        self.writer.wake()

    async def _collect_garbage(self) -> None:
        for of in list(self.writer.owned.values()):
            if of.retired_bits:
                await self._garbage_collector.collect_worker(of)
        now = time.monotonic()
        found = {
            garbage.generation: garbage
            for b in self.follower.shard_statuses
            for garbage in b.garbage
        }
        self._garbage = {name: self._garbage.get(name, now) for name in found}
        for name, garbage in found.items():
            is_due = now - self._garbage[name] > _GARBAGE_SECONDS
            if is_due and rendezvous_owner(name, self.live_replicas) == self._identity:
                await self._garbage_collector.collect(garbage)
        for old in await older_versions(self.store):
            who = rendezvous_owner(f"layout {old.layout.version}", self.live_replicas)
            if who == self._identity and await remove_layout(old):
                _log.info("layout_retired", version=old.layout.version)

    # What an operator wants of workers that are not ours

    async def forget_pod(self, pod: str) -> bool:
        """The pod is gone, whoever applies its events. Raises StoreError."""
        followed = [worker for worker in self.follower.remote_workers if worker.pod == pod]
        for worker in followed:
            await self.store.remove_worker(worker, None)
            self.follower.remove(worker)
        return self._ingest.forget_pod(pod) or bool(followed)

    async def resync_pod(self, pod: str) -> list[tuple[Worker, bool]]:
        """See `FrameRouter.resync`; workers of others are told their owners. Raises StoreError."""
        found = await self._intake.resync_pod(pod)
        now = time.monotonic()
        for worker in [worker for worker in self.follower.remote_workers if worker.pod == pod]:
            await self.store.post_request(worker, "resync")
            found.append((worker, bool(self.workers.report(worker, now).replay_endpoint)))
        return found
