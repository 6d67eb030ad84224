"""The workers that other replicas own, as this replica knows them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from store.layout import worker_name

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from indexer import ReplicatedIndex, Worker
    from store.records import WorkerRecord

_MISSING_SECONDS = 5.0  # owners check every second whether the store has everything of theirs


@dataclass
class RemoteWorker:
    """One worker of another replica."""

    record: WorkerRecord
    """The newest record that was read."""
    revision: int
    """The revision of the newest journal entry that was applied here."""
    target_revision: int
    """The blocks are right from this revision on: see `Follower` about loading."""
    complete: bool = True
    """Whether everything that journal entries build on is here."""
    missing_since: float | None = None
    """When the store was first found without the worker (`time.monotonic`); None if it has it."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """The newest one of its owner; empty before the first."""
    reported_at: float = 0.0
    """When `report` was read (`time.monotonic`)."""
    announced_revision: int = 0
    """The revision that a shard status had, which was asked for at `announced_at`."""
    announced_at: float = 0.0

    @property
    def loading(self) -> bool:
        """Whether blocks may be missing, or too many."""
        return not self.complete or self.revision < self.target_revision


class RemoteWorkers:
    """Which workers are this replica's own, and what is known of all others.

    Args:
        index: holds the blocks of all workers.
        evicted: remote workers that have lost blocks here to the memory bound. Whoever evicts adds
            them; loading a worker again removes it.
    """

    def __init__(self, index: ReplicatedIndex, evicted: set[Worker] | None = None) -> None:
        self._index = index
        self.own: set[Worker] = set()
        """Workers that this replica owns or is acquiring: nothing is applied to them."""
        self.remote: dict[Worker, RemoteWorker] = {}
        self.evicted = set() if evicted is None else evicted
        self.to_reload: set[Worker] = set()
        """Workers whose blocks have to be loaded again."""
        self.malformed: dict[Worker, str] = {}
        """Workers that could not be loaded -> the generation that is malformed."""

    def add(self, record: WorkerRecord, revision: int, target_revision: int) -> RemoteWorker:
        """Add a worker without any blocks; keep its report if it was known."""
        worker = record.worker
        former = self.remote.get(worker)
        self._index.rejoin(worker, record.model)
        self.evicted.discard(worker)
        self.malformed.pop(worker, None)
        added = self.remote[worker] = RemoteWorker(record, revision, target_revision)
        if former is not None:
            added.report, added.reported_at = former.report, former.reported_at
        return added

    def remove(self, worker: Worker) -> None:
        """Remove a worker and its blocks."""
        if self.remote.pop(worker, None) is not None:
            self._index.leave(worker)
        self._forget_flags(worker)

    # What shard statuses say

    def update_missing(self, records: Container[Worker], now: float) -> None:
        """Remove workers that the store has lacked for so long that their owners would know."""
        for worker, known in list(self.remote.items()):
            if worker in records or worker in self.own:
                known.missing_since = None
            elif known.missing_since is None:
                known.missing_since = now
            elif now - known.missing_since > _MISSING_SECONDS:
                self.remove(worker)

    def update_reports(self, reports: Mapping[str, Mapping[str, Any]], now: float) -> None:
        """Keep the reports that are new; `reports` has them by the workers' names."""
        for worker, known in self.remote.items():
            report = reports.get(worker_name(worker))
            if report is not None and report != known.report:
                known.report, known.reported_at = report, now

    # Ownership

    def take(self, worker: Worker) -> None:
        """Stop following a worker, which this replica owns now. Its blocks stay."""
        self.remote.pop(worker, None)
        self._forget_flags(worker)

    def adopt(self, record: WorkerRecord, revision: int) -> None:
        """Follow a worker that this replica has released; its blocks are here as of `revision`."""
        self.own.discard(record.worker)
        self.remote[record.worker] = RemoteWorker(record, revision, revision)

    def discard(self, worker: Worker) -> None:
        """Drop the blocks of a worker that another replica has acquired; it is to be loaded."""
        self.own.discard(worker)
        self._index.unload(worker)
        self.to_reload.add(worker)

    def _forget_flags(self, worker: Worker) -> None:
        self.to_reload.discard(worker)
        self.evicted.discard(worker)
        self.malformed.pop(worker, None)
