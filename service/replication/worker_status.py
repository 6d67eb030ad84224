"""What is known of each worker, wherever its events are applied."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

from indexer import TrustState, TrustStatus
from kvevents import StreamReport, report_of
from service.replication.reports import stream_report
from store import Failures, StoreError, replica_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from indexer import CacheLayout, Worker, WorkerBlocks
    from kvevents import WorkerStream
    from service.replication.membership import Membership
    from store import Follower, RemoteWorker, WorkerRecord

_REFRESH_SECONDS = 1.5  # records are read every second


class Workers(Protocol):
    """Every worker heard of or expected."""

    def trust_status(self, worker: Worker, now: float) -> TrustStatus:
        """Return how far the worker can be trusted at `now` (`time.monotonic`)."""
        ...

    def report(self, worker: Worker, now: float) -> StreamReport:
        """Return what operators see of the worker's stream."""
        ...

    def blocks_by_tier(self, blocks: WorkerBlocks) -> Mapping[str, int]:
        """Return how many blocks the worker holds; `blocks` is what this process's index has."""
        ...

    def cache_layout(self, blocks: WorkerBlocks) -> CacheLayout:
        """Return how the worker's cache is divided; `blocks` as above."""
        ...

    def owner(self, worker: Worker) -> str:
        """Return the name of the replica that applies its events; empty if it is this one."""
        ...

    def restarts(self, worker: Worker) -> int:
        """Return how often another engine was found in the worker's place."""
        ...

    def models(self) -> Iterator[tuple[Worker, str]]:
        """Return all workers with the models they serve."""
        ...


class LocalWorkers(Workers):
    """The workers of a service that is the only replica."""

    def __init__(self, streams: Mapping[Worker, WorkerStream]) -> None:
        self._streams = streams

    @override
    def trust_status(self, worker: Worker, now: float) -> TrustStatus:
        return self._streams[worker].trust_status(now)

    @override
    def report(self, worker: Worker, now: float) -> StreamReport:
        return report_of(self._streams[worker], now)

    @override
    def blocks_by_tier(self, blocks: WorkerBlocks) -> Mapping[str, int]:
        return blocks.by_tier

    @override
    def cache_layout(self, blocks: WorkerBlocks) -> CacheLayout:
        return blocks.layout

    @override
    def owner(self, worker: Worker) -> str:
        return ""

    @override
    def restarts(self, worker: Worker) -> int:
        return self._streams[worker].sequencer.counts.restarts

    @override
    def models(self) -> Iterator[tuple[Worker, str]]:
        return ((worker, stream.model) for worker, stream in list(self._streams.items()))


class ReplicatedWorkers(Workers):
    """This replica's workers by their streams, and all others by what their owners have written.

    Args:
        streams: of this replica's workers.
        follower: knows the others.
        membership: knows whose owners are live.
        max_lag: seconds after which a copy is too old to be believed.
        stale_after: seconds of silence after which a worker is stale; 0 for never.
        scheme_of: returns the name of the scheme of a model's block keys, as configured here.
    """

    def __init__(
        self,
        streams: Mapping[Worker, WorkerStream],
        follower: Follower,
        membership: Membership,
        max_lag: float,
        stale_after: float,
        scheme_of: Callable[[str], str],
    ) -> None:
        self._streams = streams
        self._follower = follower
        self._membership = membership
        self._max_lag = max_lag
        self._stale_after = stale_after
        self._scheme_of = scheme_of
        self._reports: dict[Worker, tuple[Mapping[str, Any], StreamReport]] = {}
        self.failures = Failures()
        """Reports that are not what an owner writes, by kind."""

    def is_local(self, worker: Worker) -> bool:
        """Whether this replica applies the worker's events."""
        return worker in self._streams

    @override
    def trust_status(self, worker: Worker, now: float) -> TrustStatus:
        stream = self._streams.get(worker)
        if stream is not None:
            return stream.trust_status(now)
        remote = self._follower.workers.remote.get(worker)
        if remote is None:
            return TrustStatus(TrustState.RECOVERING, "changing_hands", None, None)
        doubt = ""
        if remote.loading:
            doubt = "copy_loading"
        elif self._is_behind(now):
            doubt = "copy_behind"
        status = self.remote_status(remote.record, worker, now, doubt)
        if worker in self._follower.workers.evicted and status.state is TrustState.EXACT:
            return status._replace(state=TrustState.PARTIAL, reason="evicted")
        return status

    def _is_behind(self, now: float) -> bool:
        """Whether what is known of other replicas' workers is too old."""
        if self._follower.with_blocks:
            behind = self._follower.seconds_behind(now)
            return behind is None or behind > self._max_lag
        refreshed_at = self._follower.refreshed_at
        return refreshed_at is None or now - refreshed_at > self._max_lag + _REFRESH_SECONDS

    def remote_status(
        self, record: WorkerRecord, worker: Worker, now: float, doubt: str = ""
    ) -> TrustStatus:
        """Return the status that an owner wrote, as far as it can be believed.

        doubt: why it cannot, besides what the record shows; or "".
        """
        silent = self._silent(worker, now)
        doubt = doubt or self._doubt_of(record)
        return effective_status(record.status, silent, doubt, self._stale_after)

    def _doubt_of(self, record: WorkerRecord) -> str:
        """Return why a record may be wrong by now, or "" if nothing tells against it."""
        if record.scheme != self._scheme_of(record.model):
            return "other_settings"
        return "" if self._membership.is_live(record.owner) else "owner_lost"

    def _silent(self, worker: Worker, now: float) -> float | None:
        """Return the seconds since the worker's last sign of life, as its owner has reported."""
        remote = self._follower.workers.remote.get(worker)
        silent = None if remote is None else self._report_of(remote).silent
        if remote is None or silent is None:
            return None
        return silent + max(0.0, now - remote.reported_at)

    def _report_of(self, remote: RemoteWorker) -> StreamReport:
        """Return the report of the worker's owner; an empty one if it is none."""
        worker, values = remote.record.worker, remote.report
        known = self._reports.get(worker)
        if known is None or known[0] is not values:
            try:
                report = stream_report(values)
            except StoreError as error:  # the owner writes another one within a second
                self.failures.record(error)
                report = StreamReport()
            if len(self._reports) > 2 * len(self._follower.workers.remote):
                self._reports.clear()  # of workers that have left
            known = self._reports[worker] = values, report
        return known[1]

    @override
    def report(self, worker: Worker, now: float) -> StreamReport:
        stream = self._streams.get(worker)
        if stream is not None:
            return report_of(stream, now)
        remote = self._follower.workers.remote.get(worker)
        if remote is None:
            return StreamReport()
        report, passed = self._report_of(remote), max(0.0, now - remote.reported_at)
        age = report.last_event_age
        last_event_age = None if age is None else age + passed
        return replace(report, silent=self._silent(worker, now), last_event_age=last_event_age)

    @override
    def blocks_by_tier(self, blocks: WorkerBlocks) -> Mapping[str, int]:
        remote = self._follower.workers.remote.get(blocks.worker)
        if self._follower.with_blocks or remote is None:
            return blocks.by_tier
        reported: Mapping[str, int] = remote.report.get("blocks", blocks.by_tier)
        return reported

    @override
    def cache_layout(self, blocks: WorkerBlocks) -> CacheLayout:
        remote = self._follower.workers.remote.get(blocks.worker)
        return blocks.layout if remote is None else remote.record.layout

    @override
    def owner(self, worker: Worker) -> str:
        remote = self._follower.workers.remote.get(worker)
        return "" if remote is None else replica_name(remote.record.owner)

    @override
    def restarts(self, worker: Worker) -> int:
        stream = self._streams.get(worker)
        if stream is not None:
            return stream.sequencer.counts.restarts
        remote = self._follower.workers.remote.get(worker)
        return 0 if remote is None else self._report_of(remote).counts.get("restarts", 0)

    @override
    def models(self) -> Iterator[tuple[Worker, str]]:
        own = {worker: stream.model for worker, stream in self._streams.items()}
        remote = {w: known.record.model for w, known in self._follower.workers.remote.items()}
        return iter({**remote, **own}.items())


def effective_status(
    status: TrustStatus, silent: float | None, doubt: str, stale_after: float
) -> TrustStatus:
    """Return the status that an owner wrote, as it counts here.

    Args:
        status: as the owner wrote it.
        silent: seconds since the worker's last sign of life, as far as is known here.
        doubt: why the status may not be the newest; empty if nothing says so.
        stale_after: seconds of silence after which the worker is stale; 0 for never.
    """
    state = status.state
    if state is TrustState.UNKNOWN:
        return TrustStatus(state, status.reason, silent, status.as_of)
    is_silent = bool(stale_after) and silent is not None and silent > stale_after
    if doubt and not (is_silent and doubt == "owner_lost"):
        state = TrustState.STALE if doubt == "copy_behind" else TrustState.RECOVERING
        return TrustStatus(state, doubt, silent, status.as_of)
    if is_silent:  # also a worker that nobody owns, and that nobody has heard of since
        return TrustStatus(TrustState.STALE, "silent", silent, status.as_of)
    return TrustStatus(state, status.reason, silent, status.as_of)
