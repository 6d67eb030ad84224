"""The fleet servicer: what the index and the event streams know of each pod."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc

if TYPE_CHECKING:
    import grpc

    from indexer import Index, WorkerBlocks
    from kvevents import Ingest, WorkerStream


class FleetServicer(fleet_pb2_grpc.FleetServiceServicer):
    """Answers `ListPods`."""

    def __init__(self, index: Index, ingest: Ingest) -> None:
        self._index = index
        self._ingest = ingest

    async def ListPods(  # noqa: N802
        self,
        request: fleet_pb2.ListPodsRequest,
        context: grpc.aio.ServicerContext[fleet_pb2.ListPodsRequest, fleet_pb2.ListPodsResponse],
    ) -> fleet_pb2.ListPodsResponse:
        """See fleet.proto."""
        pods: dict[tuple[str, str], fleet_pb2.Pod] = {}
        for blocks in self._index.workers():
            if request.model and blocks.model != request.model:
                continue
            name = (blocks.worker.pod, blocks.model)
            pod = pods.setdefault(name, fleet_pb2.Pod(pod=name[0], model=name[1]))
            pod.ranks.append(_rank(blocks, self._ingest.streams.get(blocks.worker)))
        return fleet_pb2.ListPodsResponse(pods=pods.values())


def _rank(blocks: WorkerBlocks, stream: WorkerStream | None) -> fleet_pb2.Rank:
    rank = fleet_pb2.Rank(rank=blocks.worker.rank, blocks_by_tier=blocks.by_tier)
    if stream is None:
        return rank
    if stream.last_event is not None:
        rank.last_event_age_seconds = time.monotonic() - stream.last_event
        rank.last_sequence = stream.last_sequence
    rank.missed_frames = min(stream.missed, 2**64 - 1)  # a sequence may leap as far as it likes
    rank.backward_frames = stream.backwards
    rank.events.update(stream.applier.tally.events)
    rank.skipped.update(stream.applier.tally.skipped)
    if stream.applier.engine_block_size is not None:
        rank.engine_block_size = stream.applier.engine_block_size
    return rank
