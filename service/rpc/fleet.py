"""FleetService: what is known about each pod, how far to trust it, and what operators may do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc
from typing_extensions import override

from service.rpc.errors import InvalidRequestError, UnknownPodError
from service.rpc.trust_states import TRUST_STATES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from grpc.aio import ServicerContext

    from indexer import Index, WorkerBlocks
    from service.diagnostics import Diagnostics
    from service.replication import Replica
    from service.routing import DeliveredTokens, Outcomes
    from service.watching import PodWatch, RankChange

_MAX_COUNT = 2**64 - 1  # counts of frames derive from sequence numbers, which may jump anywhere


class FleetServicer(fleet_pb2_grpc.FleetServiceServicer):
    """Answers `ListPods`; forgets and resyncs pods and records frames for operators."""

    def __init__(
        self,
        index: Index,
        replica: Replica,
        diagnostics: Diagnostics,
        outcomes: Outcomes,
        watch: PodWatch,
    ) -> None:
        self._index = index
        self._replica = replica
        self._listener = replica.listener
        self._workers = replica.workers
        self._diagnostics = diagnostics
        self._outcomes = outcomes
        self._watch = watch

    @override
    async def ListPods(
        self,
        request: fleet_pb2.ListPodsRequest,
        context: ServicerContext[fleet_pb2.ListPodsRequest, fleet_pb2.ListPodsResponse],
    ) -> fleet_pb2.ListPodsResponse:
        pods: dict[tuple[str, str], fleet_pb2.Pod] = {}
        now = time.monotonic()
        for blocks in self._index.workers():
            if request.model and blocks.model != request.model:
                continue
            pod, model = blocks.worker.pod, blocks.model
            message = pods.setdefault((pod, model), fleet_pb2.Pod(pod=pod, model=model))
            message.ranks.append(self._rank(blocks, now))
        warnings = [
            fleet_pb2.FleetWarning(**finding._asdict())
            for finding in self._diagnostics.findings()
            if request.model in ("", finding.model)
        ]
        status = self._replica.status(now)
        shared_index = None if status is None else fleet_pb2.SharedIndex(**status._asdict())
        return fleet_pb2.ListPodsResponse(
            pods=pods.values(), warnings=warnings, shared_index=shared_index
        )

    def _rank(self, blocks: WorkerBlocks, now: float) -> fleet_pb2.Rank:
        worker = blocks.worker
        status = self._workers.trust_status(worker, now)
        report = self._workers.report(worker, now)
        counts = {name: min(count, _MAX_COUNT) for name, count in report.counts.items()}
        return fleet_pb2.Rank(
            rank=worker.rank,
            blocks_by_tier=self._workers.blocks_by_tier(blocks),
            last_event_age_seconds=report.last_event_age,
            last_sequence=status.as_of,
            missed_frames=counts.get("missed"),
            events=report.events,
            skipped=report.skipped,
            engine_block_size=report.engine_block_size,
            trust_state=TRUST_STATES[status.state],
            trust_reason=status.reason,
            silent_seconds=status.silent,
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
            delivered=_delivered(self._outcomes.of(worker, blocks.model)),
            groups=self._groups(blocks),
        )

    def _groups(self, blocks: WorkerBlocks) -> list[fleet_pb2.CacheGroup]:
        return [
            fleet_pb2.CacheGroup(
                group=number,
                kind=group.kind,
                window=group.window or None,
                block_size=group.block_size,
            )
            for number, group in sorted(self._workers.cache_layout(blocks).groups.items())
        ]

    @override
    async def ForgetPod(
        self,
        request: fleet_pb2.ForgetPodRequest,
        context: ServicerContext[fleet_pb2.ForgetPodRequest, fleet_pb2.ForgetPodResponse],
    ) -> fleet_pb2.ForgetPodResponse:
        if not await self._replica.forget_pod(_pod_of(request)):
            raise UnknownPodError(request.pod, self._pods())
        return fleet_pb2.ForgetPodResponse()

    @override
    async def ResyncPod(
        self,
        request: fleet_pb2.ResyncPodRequest,
        context: ServicerContext[fleet_pb2.ResyncPodRequest, fleet_pb2.ResyncPodResponse],
    ) -> fleet_pb2.ResyncPodResponse:
        ranks = await self._replica.resync_pod(_pod_of(request))
        if not ranks:
            raise UnknownPodError(request.pod, self._pods())
        return fleet_pb2.ResyncPodResponse(
            replaying_ranks=[worker.rank for worker, replays in ranks if replays],
            emptied_ranks=[worker.rank for worker, replays in ranks if not replays],
        )

    def _pods(self) -> list[str]:
        models = self._index.models()
        return [pod for model in models for pod in self._index.pods_of(model)]

    @override
    async def WatchPods(
        self,
        request: fleet_pb2.WatchPodsRequest,
        context: ServicerContext[fleet_pb2.WatchPodsRequest, fleet_pb2.WatchPodsResponse],
    ) -> AsyncIterator[fleet_pb2.WatchPodsResponse]:
        with self._watch.watching(request.model, request.pods) as changes:
            await context.send_initial_metadata(())
            async for change in changes:
                yield _watched(change)

    @override
    async def RecordFrames(
        self,
        request: fleet_pb2.RecordFramesRequest,
        context: ServicerContext[fleet_pb2.RecordFramesRequest, fleet_pb2.RecordFramesResponse],
    ) -> AsyncIterator[fleet_pb2.RecordFramesResponse]:
        endpoints = [source.endpoint for source in self._listener.sources]
        if request.endpoint and request.endpoint not in endpoints:
            known = ", ".join(endpoints) or "none"
            raise InvalidRequestError(
                f"endpoint {request.endpoint!r} is not configured; configured endpoints: {known}"
            )
        with self._listener.recorders.recording(request.endpoint) as frames:
            # Tells the caller that the recording has begun: it misses no later frame.
            await context.send_initial_metadata(())
            async for frame in frames:
                yield fleet_pb2.RecordFramesResponse(
                    received_at=frame.received_at,
                    endpoint=frame.endpoint,
                    parts=frame.parts,
                    dropped=frame.dropped,
                )


def _delivered(tokens: DeliveredTokens | None) -> fleet_pb2.DeliveredTokens | None:
    if tokens is None:
        return None
    return fleet_pb2.DeliveredTokens(
        outcomes=tokens.outcomes,
        promised_tokens=tokens.promised,
        delivered_tokens=tokens.delivered,
        missing_tokens=tokens.missing,
        delivered_tokens_by_source=tokens.by_source,
    )


def _watched(change: RankChange) -> fleet_pb2.WatchPodsResponse:
    message = fleet_pb2.WatchPodsResponse(
        change=f"POD_CHANGE_{change.change.name}",
        changed_at=change.at,
        skipped_changes=change.skipped,
    )
    state = change.state
    if state is None:
        return message
    message.pod, message.rank = state.worker
    message.model, message.owner, message.restarts = state.model, state.owner, state.restarts
    message.trust_state = TRUST_STATES[state.status.state]
    message.trust_reason = state.status.reason
    if state.status.silent is not None:
        message.silent_seconds = state.status.silent
    if state.status.as_of is not None:
        message.last_sequence = state.status.as_of
    return message


def _pod_of(request: fleet_pb2.ForgetPodRequest | fleet_pb2.ResyncPodRequest) -> str:
    if not request.pod:
        raise InvalidRequestError("pod is not set")
    return request.pod
