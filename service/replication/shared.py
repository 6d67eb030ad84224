"""A replica that shares its index with others through the store.

What each loop does:

    heartbeat    renews this replica's lease, and learns who else is live
    assign       after each heartbeat: listens to the sources that are this replica's
    take over    acquires the workers that publish there, before their events are applied
    hand over    in place of assign and report, when this replica leaves
    write        writes what has changed of this replica's workers
    follow N     applies what other replicas have written to shard N
    report       exchanges reports, and finds out what the store has lost
    collect      deletes what no replica needs any more

A replica that was wrongly taken for dead finds its writes fenced, and drops its workers.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Self

import structlog
from typing_extensions import override

from service.metrics import ReplicationCollector
from service.replication.handover import (
    Leaving,
    OwnershipRequests,
    SourceAssignment,
    TakeoverLoop,
    WaitingOwners,
)
from service.replication.housekeeping import Housekeeping
from service.replication.membership import Membership
from service.replication.replica import Replica, ReplicationStatus
from service.replication.reports import ReportExchange
from service.replication.store_failures import StoreFailures, repeat
from service.replication.store_lookup import StoreLookup
from service.replication.worker_status import ReplicatedWorkers
from service.replication.writer_streams import WriterStreams
from service.routing import share_routing
from store import Follower, StoreError, WorkerOwnership, Writer, newest_failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from prometheus_client.registry import Collector

    from indexer import PromptKeys, ReplicatedIndex, Worker
    from kvevents import Listener
    from service.config import StoreSection
    from service.loops import Loop, Loops
    from service.replication.replica import ListenerFactory, PromptMatch
    from service.replication.worker_status import Workers
    from service.routing import Routing
    from store import Failures, Store

_INTERVAL = 1.0
_HANDOVER_SECONDS = 5.0

_log = structlog.get_logger("kvatlas.service")


class SharedReplica(Replica):
    """One of several replicas.

    Args:
        store: where the index is shared.
        index: this process's part of it.
        section: configuration of the store.
        make_listener: makes what receives and applies events.
        loops: runs the loops of this replica.
        scheme_of: returns the name of the scheme of a model's block keys.
        tier_weights: see `indexer.Index`.
        stale_after: seconds of silence after which a worker is stale; 0 for never.
    """

    def __init__(
        self,
        store: Store,
        index: ReplicatedIndex,
        section: StoreSection,
        make_listener: ListenerFactory,
        loops: Loops,
        scheme_of: Callable[[str], str],
        tier_weights: Mapping[str, float],
        stale_after: float,
    ) -> None:
        self.store, self._section, self._loops = store, section, loops
        self.failures = StoreFailures()
        name, lease, max_lag = section.replica_name, section.lease_seconds, section.max_lag_seconds
        self.membership = membership = Membership(store, name, lease, self.failures)
        requests, changed = OwnershipRequests(membership), asyncio.Event()
        self._listener = listener = make_listener(ownership=requests, on_change=changed.set)
        router, identity = listener.router, membership.identity
        copy, on_applied = section.copy_blocks, router.mark_evicted
        self.follower = follower = Follower(
            store, index, with_blocks=copy, on_applied=on_applied, evicted=requests.evicted
        )
        waiting = WaitingOwners(store, identity)
        streams, live = WriterStreams(router, follower, waiting.kept_by), lambda: membership.live
        self.writer = writer = Writer(store, index, identity, streams, live, changed)
        owners = WorkerOwnership(store, index, writer, follower, identity, scheme_of)
        self.ownership = owners
        known = (follower, owners, waiting)
        self._assignment = SourceAssignment(listener, membership, requests, *known)
        written = (store, writer, follower, owners, self.failures, waiting)
        self._takeover = TakeoverLoop(requests, router, membership, *written)
        self._reports = ReportExchange(store, index, listener, writer, follower, waiting)
        self._assigned = asyncio.Event()
        self._housekeeping = Housekeeping(store, membership, writer, follower, index)
        self._workers = ReplicatedWorkers(
            router.streams, follower, membership, max_lag, stale_after, scheme_of
        )
        self.lookup = StoreLookup(store, index, follower, self._workers, section, tier_weights)
        parts = (router, membership, self._reports, self._assignment, self.failures)
        self._leaving = Leaving(loops, *parts)

    @property
    @override
    def listener(self) -> Listener:
        return self._listener

    @property
    @override
    def workers(self) -> Workers:
        return self._workers

    @override
    def status(self, now: float) -> ReplicationStatus:
        return ReplicationStatus(
            replica=self.membership.name,
            live_replicas=self.membership.live_names,
            copy_behind_seconds=self.follower.seconds_behind(now),
            store_failure=self.writer.failing or newest_failure(self.all_failures(), now),
        )

    def all_failures(self) -> tuple[Failures, ...]:
        """Return the failures of the store, by who met them."""
        met = (self.writer, self.follower, self.ownership, self.store)
        others = (self.failures.counts, self.lookup.failures, self._workers.failures)
        return (*(one.failures for one in met), *others)

    @override
    def collectors(self) -> Iterator[Collector]:
        yield ReplicationCollector(self)

    # Life cycle

    @override
    async def __aenter__(self) -> Self:
        await self._greet()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._listener)
            stack.push_async_callback(self._stop)
            for name, loop in self._all_loops().items():
                self._loops.start(name, loop)
            self._stack = stack.pop_all()
        return self

    @override
    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def _greet(self) -> None:
        """Raise StoreError if the store answers, and refuses this service: that is no outage."""
        try:
            await self.store.heartbeat("", self._section.lease_seconds)
            await self.store.register_layout()
        except StoreError as error:
            if error.kind == "refused":
                raise StoreError(error.kind, f"store.url: the store refuses: {error}") from error
            self.failures.record(error)  # the loops try again

    def _all_loops(self) -> dict[str, Loop]:
        loops: dict[str, Loop] = {
            "write": self.writer.run,
            "heartbeat": self.membership.run,
            "assign": self._assign,
            "take over": self._take_over,
            "report": partial(self._repeat, self._reports.run_once),
            "collect": partial(self._repeat, self._housekeeping.run_once),
        }
        if self._section.copy_blocks:
            for shard in range(self.store.layout.shards):
                loops[f"follow {shard}"] = partial(self.follower.follow_shard, shard)
        return loops

    @override
    async def begin_leaving(self) -> None:
        await self._leaving.begin()

    async def _stop(self) -> None:
        """Release everything, so that others go on at once. The writer has to run until then."""
        await self._leaving.finish()
        await self._loops.stop(*(name for name in self._all_loops() if name != "write"))
        try:
            async with asyncio.timeout(_HANDOVER_SECONDS):
                await self._assignment.release_all()
                await self.membership.deregister()
        except (StoreError, TimeoutError) as error:
            _log.warning("not_withdrawn", detail=str(error))
        await self._loops.stop("write")

    @override
    async def wait_until_ready(self) -> None:
        try:
            async with asyncio.timeout(self._section.ready_seconds):
                await self._assigned.wait()
                while self._section.copy_blocks and not self.follower.is_warm:
                    with suppress(TimeoutError):  # look again: what it waits for may be gone
                        async with asyncio.timeout(_INTERVAL):
                            await self.follower.wait_for_progress()
        except TimeoutError:
            _log.warning("not_warm", detail="ready without a copy of other replicas' blocks")

    # Loops

    async def _assign(self) -> None:
        heartbeats = 0
        while True:
            heartbeats = await self.membership.wait_for_heartbeat(heartbeats)
            try:
                if not self._assigned.is_set():
                    await self._prepare()
                await self._assignment.assign_sources()
                await self.ownership.release_abandoned()
            except StoreError as error:
                self.failures.record(error)
            else:
                self._assigned.set()

    async def _prepare(self) -> None:
        """Register the layout, and learn which workers there are. Raises StoreError."""
        await self.store.register_layout()
        await self.follower.refresh()
        if policy := await self.store.server.drops_keys():
            detail = "a full store drops blocks that pods hold: set maxmemory-policy noeviction"
            _log.warning("store_drops_keys", policy=policy, detail=detail)

    async def _take_over(self) -> None:
        await self._assigned.wait()  # until then it is unknown which sources are this replica's
        await self._takeover.run()

    async def _repeat(self, action: Callable[[], Awaitable[None]]) -> None:
        await self._assigned.wait()
        await repeat(_INTERVAL, action, self.failures)

    # Requests

    @property
    @override
    def may_wait(self) -> bool:
        return not self.lookup.is_copy_fresh(time.monotonic())

    @property
    @override
    def has_all_blocks(self) -> bool:
        return self._section.copy_blocks

    @override
    async def match(
        self, model: str, prompt: PromptKeys, until: float | None = None
    ) -> PromptMatch:
        return await self.lookup.match(model, prompt, until)

    @override
    async def forget_pod(self, pod: str) -> bool:
        is_remote = await self._housekeeping.remove_pod(pod)
        return self._listener.router.forget_pod(pod) or is_remote

    @override
    async def forget_gone_pod(self, pod: str) -> bool:
        self._listener.router.forget_pod(pod)
        return await self._housekeeping.remove_unowned(pod)

    @override
    async def resync_pod(self, pod: str) -> list[tuple[Worker, bool]]:
        resynced = await self._listener.resync_pod(pod)
        now = time.monotonic()
        for worker in [worker for worker in self.follower.workers.remote if worker.pod == pod]:
            await self.store.request(worker, "resync")  # its owner takes it within a second
            resynced.append((worker, bool(self._workers.report(worker, now).replay_endpoint)))
        return resynced

    @override
    def on_under_delivery(self, worker: Worker) -> None:
        if worker in self._listener.router.streams:
            self._listener.router.on_under_delivery(worker)
        else:
            self._reports.under_delivering.add(worker)

    @override
    def share_routing(self, routing: Routing) -> Mapping[str, Loop]:
        identity, live = self.membership.identity, lambda: self.membership.live
        return share_routing(self.store, routing, identity, live, self.failures.counts)
