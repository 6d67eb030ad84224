"""The fleet servicer: what is known of each pod, how well, and what to do about it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc

from service.rpc.errors import InvalidRequestError, UnknownPodError
from service.rpc.trust_states import TRUST_STATES
from store import replica_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from indexer import Index, WorkerBlocks
    from kvevents import Listener
    from service.diagnostics import Diagnostics
    from service.replication import Replica, Workers

_MOST = 2**64 - 1  # a sequence may leap as far as it likes


class FleetServicer(fleet_pb2_grpc.FleetServiceServicer):
    """Answers `ListPods`, and does what an operator asks."""

    def __init__(
        self,
        index: Index,
        intake: Listener,
        workers: Workers,
        diagnostics: Diagnostics,
        replica: Replica | None = None,
    ) -> None:
        self._index = index
        self._intake = intake
        self._workers = workers
        self._diagnostics = diagnostics
        self._replica = replica

    async def ListPods(  # noqa: N802
        self,
        request: fleet_pb2.ListPodsRequest,
        context: grpc.aio.ServicerContext[fleet_pb2.ListPodsRequest, fleet_pb2.ListPodsResponse],
    ) -> fleet_pb2.ListPodsResponse:
        """See fleet.proto."""
        pods: dict[tuple[str, str], fleet_pb2.Pod] = {}
        now = time.monotonic()
        for blocks in self._index.workers():
            if request.model and blocks.model != request.model:
                continue
            name = (blocks.worker.pod, blocks.model)
            pod = pods.setdefault(name, fleet_pb2.Pod(pod=name[0], model=name[1]))
            pod.ranks.append(self._rank(blocks, now))
        warnings = [
            fleet_pb2.FleetWarning(**finding._asdict())
            for finding in self._diagnostics.findings()
            if request.model in ("", finding.model)
        ]
        shared = None if self._replica is None else _shared_index(self._replica, now)
        return fleet_pb2.ListPodsResponse(
            pods=pods.values(), warnings=warnings, shared_index=shared
        )

    def _rank(self, blocks: WorkerBlocks, now: float) -> fleet_pb2.Rank:
        worker = blocks.worker
        standing, report = (
            self._workers.trust_status(worker, now),
            self._workers.report(worker, now),
        )
        counts = {name: min(count, _MOST) for name, count in report.counts.items()}
        return fleet_pb2.Rank(
            rank=worker.rank,
            blocks_by_tier=self._workers.blocks_by_tier(blocks),
            last_event_age_seconds=report.last_event_age,
            last_sequence=standing.as_of,
            missed_frames=counts.get("missed"),
            events=report.events,
            skipped=report.skipped,
            engine_block_size=report.engine_block_size,
            trust_state=TRUST_STATES[standing.state],
            trust_reason=standing.reason,
            silent_seconds=standing.silent,
            gaps=counts.get("gaps"),
            replayed_frames=counts.get("replayed"),
            duplicate_frames=counts.get("duplicates"),
            late_frames=counts.get("late"),
            restarts=counts.get("restarts"),
            replays=counts.get("replays"),
            replay_failures=counts.get("replay_failures"),
            orphan_blocks=report.orphan_blocks,
            overflows=counts.get("overflows"),
            replay_endpoint=report.replay_endpoint,
            live_frames=report.live_frames,
            owner=self._workers.owner(worker),
            rival_frames=counts.get("rivals"),
            groups=[
                fleet_pb2.CacheGroup(
                    group=number,
                    kind=group.kind,
                    window=group.window or None,
                    block_size=group.block_size,
                )
                for number, group in sorted(self._workers.cache_layout(blocks).groups.items())
            ],
        )

    async def ForgetPod(  # noqa: N802
        self,
        request: fleet_pb2.ForgetPodRequest,
        context: grpc.aio.ServicerContext[fleet_pb2.ForgetPodRequest, fleet_pb2.ForgetPodResponse],
    ) -> fleet_pb2.ForgetPodResponse:
        """See fleet.proto."""
        pod = self._named(request.pod)
        if not (
            self._intake.router.forget_pod(pod)
            if self._replica is None
            else await self._replica.forget_pod(pod)
        ):
            raise UnknownPodError(request.pod)
        return fleet_pb2.ForgetPodResponse()

    async def ResyncPod(  # noqa: N802
        self,
        request: fleet_pb2.ResyncPodRequest,
        context: grpc.aio.ServicerContext[fleet_pb2.ResyncPodRequest, fleet_pb2.ResyncPodResponse],
    ) -> fleet_pb2.ResyncPodResponse:
        """See fleet.proto."""
        resync = (self._replica or self._intake).resync_pod
        ranks = await resync(self._named(request.pod))
        if not ranks:
            raise UnknownPodError(request.pod)
        return fleet_pb2.ResyncPodResponse(
            replaying_ranks=[worker.rank for worker, replays in ranks if replays],
            emptied_ranks=[worker.rank for worker, replays in ranks if not replays],
        )

    async def RecordFrames(  # noqa: N802
        self,
        request: fleet_pb2.RecordFramesRequest,
        context: grpc.aio.ServicerContext[
            fleet_pb2.RecordFramesRequest, fleet_pb2.RecordFramesResponse
        ],
    ) -> AsyncIterator[fleet_pb2.RecordFramesResponse]:
        """See fleet.proto."""
        endpoints = [source.endpoint for source in self._intake.sources]
        if request.endpoint and request.endpoint not in endpoints:
            known = ", ".join(endpoints) or "none"
            raise InvalidRequestError(
                f"endpoint {request.endpoint!r} is not configured; these are: {known}"
            )
        with self._intake.recorders.recording(request.endpoint) as frames:
            await context.send_initial_metadata(())  # nothing is missed from here on
            async for frame in frames:
                yield fleet_pb2.RecordFramesResponse(
                    received_at=frame.received_at,
                    endpoint=frame.endpoint,
                    parts=frame.parts,
                    dropped=frame.dropped,
                )

    @staticmethod
    def _named(pod: str) -> str:
        if not pod:
            raise InvalidRequestError("pod is not set")
        return pod


def _shared_index(replica: Replica, now: float) -> fleet_pb2.SharedIndex:
    return fleet_pb2.SharedIndex(
        replica=replica.name,
        live_replicas=sorted({replica_name(live) for live in replica.live_replicas}),
        copy_behind_seconds=replica.follower.seconds_behind(now),
        store_failure=replica.writer.failing,
    )
