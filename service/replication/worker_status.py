"""What is known of each worker's stream, wherever its events are applied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from indexer import TrustState, TrustStatus
from kvevents import StreamReport, report_of
from store import replica_name, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from indexer import CacheLayout, Worker, WorkerBlocks
    from kvevents import WorkerStream
    from store import Follower, RemoteWorker, WorkerRecord

_REFRESH_SECONDS = 1.5  # bulletins are read every second


class Workers(Protocol):
    """Every worker heard of or expected."""

    def trust_status(self, worker: Worker, now: float) -> TrustStatus:
        """How much to trust what is claimed of it, at `now` (`time.monotonic`)."""
        ...

    def report(self, worker: Worker, now: float) -> StreamReport:
        """What an operator is told of it."""
        ...

    def blocks_by_tier(self, blocks: WorkerBlocks) -> Mapping[str, int]:
        """What it holds; `blocks`: what it holds as far as this process's index knows."""
        ...

    def cache_layout(self, blocks: WorkerBlocks) -> CacheLayout:
        """How its cache is divided; `blocks`: as this process's index knows the worker."""
        ...

    def owner(self, worker: Worker) -> str:
        """The replica that applies its events, empty if it is this one."""
        ...

    def models(self) -> Iterator[tuple[Worker, str]]:
        """All of them, with the models they serve."""
        ...


class LocalWorkers:
    """Those whose events are applied here."""

    def __init__(self, streams: Mapping[Worker, WorkerStream]) -> None:
        self._streams = streams

    def trust_status(self, worker: Worker, now: float) -> TrustStatus:
        """See `Workers`."""
        return self._streams[worker].trust_status(now)

    def report(self, worker: Worker, now: float) -> StreamReport:
        """See `Workers`."""
        return report_of(self._streams[worker], now)

    def blocks_by_tier(self, blocks: WorkerBlocks) -> Mapping[str, int]:
        """See `Workers`."""
        return blocks.by_tier

    def cache_layout(self, blocks: WorkerBlocks) -> CacheLayout:
        """See `Workers`."""
        return blocks.layout

    def owner(self, worker: Worker) -> str:  # noqa: ARG002
        """See `Workers`."""
        return ""

    def models(self) -> Iterator[tuple[Worker, str]]:
        """See `Workers`."""
        return ((worker, stream.model) for worker, stream in list(self._streams.items()))


class ReplicatedWorkers:
    """Those whose events are applied here, and those that `copy` follows.

    live: the replicas that are, as of the last beat. most_behind: seconds after which a copy is too
    old to be believed. stale_after: seconds of silence, 0 for never. scheme_of: model -> what the
    scheme of its block keys is called here.
    """

    def __init__(
        self,
        streams: Mapping[Worker, WorkerStream],
        copy: Follower,
        most_behind: float,
        stale_after: float,
        scheme_of: Callable[[str], str],
    ) -> None:
        self._streams = streams
        self._scheme_of = scheme_of
        self._follower = copy
        self._most_behind = most_behind
        self._stale_after = stale_after
        self.live_replicas: Collection[str] = ()

    def is_local(self, worker: Worker) -> bool:
        """Whether its events are applied here."""
        return worker in self._streams

    def trust_status(self, worker: Worker, now: float) -> TrustStatus:
        """See `Workers`."""
        stream = self._streams.get(worker)
        if stream is not None:
            return stream.trust_status(now)
        followed = self._follower.remote_workers.get(worker)
        if followed is None:
            return TrustStatus(TrustState.RECOVERING, "changing_hands", None, None)
        reason = ""
        if followed.loading:
            reason = "copy_loading"
        elif self._is_behind(now):
            reason = "copy_behind"
        standing = self.remote_status(followed, now, reason)
        if followed.evicted_locally and standing.state is TrustState.EXACT:
            return standing._replace(state=TrustState.PARTIAL, reason="evicted")
        return standing

    def _is_behind(self, now: float) -> bool:
        """Whether what is known of the workers of others is too old."""
        if self._follower.with_blocks:
            behind = self._follower.seconds_behind(now)
            return behind is None or behind > self._most_behind
        refreshed_at = self._follower.refreshed_at
        return refreshed_at is None or now - refreshed_at > self._most_behind + _REFRESH_SECONDS

    def remote_status(self, followed: RemoteWorker, now: float, doubt: str = "") -> TrustStatus:
        """What its owner claims of a worker, as far as that can be believed.

        doubt: why it cannot, besides what is judged here; or "".
        """
        doubt = doubt or self.doubt_of(followed.record)
        return effective_status(
            followed.record.status, self.silent(followed, now), doubt, self._stale_after
        )

    def doubt_of(self, told: WorkerRecord) -> str:
        """Why what is told of a worker may not be so, or ""."""
        if told.scheme != self._scheme_of(told.model):
            return "other_settings"
        return "" if told.owner in self.live_replicas else "owner_lost"

    @staticmethod
    def silent(followed: RemoteWorker, now: float) -> float | None:
        """Seconds since the worker's last sign of life, as far as its owner has told."""
        if not followed.report:
            return None
        silent: float | None = unpack(followed.report)["silent"]
        return None if silent is None else silent + max(0.0, now - followed.reported_at)

    def report(self, worker: Worker, now: float) -> StreamReport:
        """See `Workers`."""
        stream = self._streams.get(worker)
        if stream is not None:
            return report_of(stream, now)
        followed = self._follower.remote_workers.get(worker)
        if followed is None or not followed.report:
            return StreamReport()
        told = unpack(followed.report)
        told.pop("blocks", None)
        passed = max(0.0, now - followed.reported_at)
        for age in ("silent", "last_event_age"):
            told[age] = None if told[age] is None else told[age] + passed
        return StreamReport(**told)

    def blocks_by_tier(self, blocks: WorkerBlocks) -> Mapping[str, int]:
        """See `Workers`."""
        followed = self._follower.remote_workers.get(blocks.worker)
        if self._follower.with_blocks or followed is None or not followed.report:
            return blocks.by_tier
        told: dict[str, int] = unpack(followed.report)["blocks"]
        return told

    def cache_layout(self, blocks: WorkerBlocks) -> CacheLayout:
        """See `Workers`."""
        followed = self._follower.remote_workers.get(blocks.worker)
        return blocks.layout if followed is None else followed.record.layout

    def owner(self, worker: Worker) -> str:
        """See `Workers`."""
        followed = self._follower.remote_workers.get(worker)
        return "" if followed is None else replica_name(followed.record.owner)

    def models(self) -> Iterator[tuple[Worker, str]]:
        """See `Workers`."""
        own = {worker: stream.model for worker, stream in self._streams.items()}
        others = {worker: f.record.model for worker, f in self._follower.remote_workers.items()}
        return iter({**others, **own}.items())


def effective_status(
    status: TrustStatus, silent: float | None, doubt: str, stale_after: float
) -> TrustStatus:
    """The status that an owner wrote, as it counts here.

    Args:
        status: as the owner wrote it.
        silent: seconds since the worker's last sign of life, as far as is known here.
        doubt: why the status may not be the newest; empty if nothing says so.
        stale_after: seconds of silence after which the worker is stale; 0 for never.
    """
    state = status.state
    if state is TrustState.UNKNOWN:
        return TrustStatus(state, status.reason, silent, status.as_of)
    if doubt:
        kind = TrustState.STALE if doubt == "copy_behind" else TrustState.RECOVERING
        return TrustStatus(kind, doubt, silent, status.as_of)
    if stale_after and silent is not None and silent > stale_after:
        return TrustStatus(TrustState.STALE, "silent", silent, status.as_of)
    return TrustStatus(state, status.reason, silent, status.as_of)
