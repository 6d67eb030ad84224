"""What the writer asks about this replica's event streams, answered by the frame router."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from indexer import TrustState, TrustStatus
from kvevents import dump_stream, has_every_frame
from store import Streams

if TYPE_CHECKING:
    from collections.abc import Mapping

    from indexer import Worker
    from kvevents import FrameRouter
    from store import Follower


class WriterStreams(Streams):
    """The streams of a router; workers that the writer loses are the follower's."""

    def __init__(
        self, router: FrameRouter, follower: Follower, kept_by: Mapping[Worker, str]
    ) -> None:
        """Args: kept_by: notes of replicas that keep the workers' frames; see `WaitingOwners`."""
        self._kept_by = kept_by
        self._router = router
        self._follower = follower

    @override
    def trust_status(self, worker: Worker) -> TrustStatus:
        stream = self._router.streams.get(worker)
        if stream is None:
            return TrustStatus(TrustState.RECOVERING, "changing_hands")
        return stream.trust_status(time.monotonic())._replace(silent=None)

    @override
    def dump(self, worker: Worker) -> dict[str, Any] | None:
        stream = self._router.streams.get(worker)
        dumped = None if stream is None else dump_stream(stream)
        if stream is None or dumped is None:
            return None
        # Else the frames that the next owner keeps may be another engine's, or begin too late.
        if worker in self._kept_by and has_every_frame(stream):
            dumped["kept_by"] = self._kept_by[worker]
        return dumped

    @override
    def on_fenced(self, worker: Worker) -> None:
        self._router.release(worker)
        self._follower.workers.discard(worker)  # its blocks here may be too many
