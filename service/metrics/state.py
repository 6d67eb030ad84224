"""Metrics of the index, the events, the diagnostics and the snapshots, read at each scrape.

Neither the index nor the streams know about metrics: the tables below say what is read from them.
The event loop may run other tasks between two families, so each family is built in one go: no
iterator over shared state outlives a `yield`.
"""

from __future__ import annotations

import time
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from prometheus_client.core import CounterMetricFamily as CounterFamily
from prometheus_client.core import GaugeMetricFamily as GaugeFamily
from prometheus_client.registry import Collector

from indexer import COMPILED
from kvevents import report_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from indexer import MemoryIndex, TrustStatus, Worker
    from kvevents import FrameRouter, StreamReport
    from service.diagnostics import Diagnostics
    from service.snapshot import Snapshots

    _T = TypeVar("_T")
    _Family: TypeAlias = type[CounterFamily | GaugeFamily]
    # Family, name, help text, and how to read its value.
    _Values: TypeAlias = tuple[tuple[_Family, str, str, Callable[[_T], float]], ...]


class _Rank(NamedTuple):
    """The stream of one worker at the moment of a scrape."""

    worker: Worker
    report: StreamReport
    status: TrustStatus


class _RankFamily(NamedTuple):
    """A family with a sample, or several, for each rank of each pod."""

    family: _Family
    name: str
    help: str
    samples: Callable[[_Rank], Mapping[tuple[str, ...], float]]
    """Values by the labels that follow pod and rank."""
    labels: tuple[str, ...] = ()

    def read(self, ranks: Iterable[_Rank]) -> Metric:
        """The family with the samples of all ranks."""
        family = self.family(self.name, self.help, labels=["pod", "rank", *self.labels])
        for rank in ranks:
            for labels, value in self.samples(rank).items():
                family.add_metric([rank.worker.pod, str(rank.worker.rank), *labels], value)
        return family


_INDEX: _Values[MemoryIndex] = (
    (
        GaugeFamily,
        "kvatlas_index_blocks",
        "Distinct blocks in the index.",
        lambda index: index.table.block_count,
    ),
    (
        GaugeFamily,
        "kvatlas_index_mappings",
        "Engine hashes whose block key is known.",
        lambda index: index.table.mapping_count,
    ),
    (
        GaugeFamily,
        "kvatlas_index_holder_sets",
        "Distinct sets of holders.",
        lambda index: index.table.sets.live,
    ),
    (
        GaugeFamily,
        "kvatlas_index_bytes",
        "Memory that the index uses, in bytes.",
        lambda index: index.table.bytes_used,
    ),
    (
        GaugeFamily,
        "kvatlas_index_limit_bytes",
        "Memory that the index may use, in bytes.",
        lambda index: index.table.limit_bytes,
    ),
    (
        CounterFamily,
        "kvatlas_index_evicted_blocks",
        "Blocks evicted because the index reached its memory limit.",
        lambda index: index.table.evicted_blocks,
    ),
    (
        CounterFamily,
        "kvatlas_index_evicted_mappings",
        "Engine hashes evicted because the index reached its memory limit.",
        lambda index: index.table.evicted_mappings,
    ),
)

_ROUTER: _Values[FrameRouter] = (
    (CounterFamily, "kvatlas_frames", "Frames received.", lambda router: router.frames),
    (
        CounterFamily,
        "kvatlas_ranks_departed",
        "Ranks forgotten after events.departed_seconds of silence.",
        lambda router: router.departed,
    ),
    (
        GaugeFamily,
        "kvatlas_waiting_bytes",
        "Memory of the frames that wait for replays and the blocks that wait for their parents.",
        lambda router: router.budget.used,
    ),
)

_SNAPSHOTS: _Values[Snapshots] = (
    (CounterFamily, "kvatlas_snapshots_written", "Snapshots written.", lambda made: made.written),
    (
        CounterFamily,
        "kvatlas_snapshots_failed",
        "Snapshots that could not be written.",
        lambda snapshots: snapshots.failed,
    ),
    (GaugeFamily, "kvatlas_snapshot_bytes", "Size of the newest snapshot.", lambda made: made.size),
    (
        GaugeFamily,
        "kvatlas_snapshot_seconds",
        "Time it took to write the newest snapshot.",
        lambda snapshots: snapshots.seconds,
    ),
)

_RANKS = (
    _RankFamily(
        CounterFamily,
        "kvatlas_events",
        "Events applied, by type.",
        lambda rank: {(kind,): count for kind, count in rank.report.events.items()},
        ("type",),
    ),
    _RankFamily(
        CounterFamily,
        "kvatlas_events_skipped",
        "Events and blocks that were not applied, by reason.",
        lambda rank: {(reason,): count for reason, count in rank.report.skipped.items()},
        ("reason",),
    ),
    _RankFamily(
        GaugeFamily,
        "kvatlas_last_event_age_seconds",
        "Time since the pod's last frame.",
        lambda rank: {} if rank.report.last_event_age is None else {(): rank.report.last_event_age},
    ),
    _RankFamily(
        GaugeFamily,
        "kvatlas_pod_state",
        "1 for the pod's current trust state and its reason.",
        lambda rank: {(rank.status.state.value, rank.status.reason): 1},
        ("state", "reason"),
    ),
    _RankFamily(
        GaugeFamily,
        "kvatlas_orphan_blocks",
        "Blocks that wait until their parent or their tokens are announced.",
        lambda rank: {(): rank.report.orphan_blocks},
    ),
)

_FRAME_COUNTS = {  # field of `FrameCounts` -> name and help text
    "gaps": ("kvatlas_gaps", "Gaps in the sequence numbers."),
    "missed": ("kvatlas_frames_missed", "Frames never received, as sequence numbers tell."),
    "replayed": ("kvatlas_frames_replayed", "Frames applied from replays."),
    "duplicates": ("kvatlas_frames_duplicates", "Frames received a second time."),
    "late": ("kvatlas_frames_late", "Frames that arrived after they were counted as missed."),
    "superseded": (
        "kvatlas_frames_superseded",
        "Waiting frames of an engine that was replaced, dropped.",
    ),
    "restarts": ("kvatlas_restarts", "Times another engine was found in a pod's place."),
    "replays": ("kvatlas_replays", "Replays requested."),
    "replay_failures": ("kvatlas_replay_failures", "Replays that were not answered completely."),
    "rivals": (
        "kvatlas_frames_rivals",
        "Frames that another live connection sent in a pod's name, not applied.",
    ),
    "overflows": (
        "kvatlas_overflows",
        "Times there was no memory left for frames that wait for a replay.",
    ),
}


class StateCollector(Collector):
    """What the index holds, and what became of the events."""

    def __init__(
        self,
        index: MemoryIndex,
        router: FrameRouter,
        diagnostics: Diagnostics,
        snapshots: Snapshots | None = None,
        most_ranks: int = 1000,
    ) -> None:
        self._index = index
        self._router = router
        self._diagnostics = diagnostics
        self._snapshots = snapshots
        self._most_ranks = most_ranks

    def collect(self) -> Iterator[Metric]:
        """All families."""
        yield GaugeFamily(
            "kvatlas_kernel_compiled", "1 if the kernel is compiled, 0 if not.", int(COMPILED)
        )
        yield from _read(_INDEX, self._index)
        yield self._pod_blocks()
        yield from _read(_ROUTER, self._router)
        yield self._skipped_frames()
        yield from self._rank_families()
        yield self._findings()
        if self._snapshots is not None:
            yield from self._snapshot_families(self._snapshots)

    def _pod_blocks(self) -> Metric:
        family = GaugeFamily(
            "kvatlas_pod_blocks", "Blocks a pod holds.", labels=["pod", "rank", "model", "tier"]
        )
        for held in islice(self._index.workers(), self._most_ranks):
            for tier, blocks in held.by_tier.items():
                labels = [held.worker.pod, str(held.worker.rank), held.model, tier]
                family.add_metric(labels, blocks)
        return family

    def _skipped_frames(self) -> Metric:
        family = CounterFamily(
            "kvatlas_frames_skipped", "Frames that belong to no known pod.", labels=["reason"]
        )
        for reason, count in self._router.skipped.items():
            family.add_metric([reason], count)
        return family

    def _rank_families(self) -> Iterator[Metric]:
        now = time.monotonic()
        ranks = [
            _Rank(worker, report_of(stream, now), stream.trust_status(now))
            for worker, stream in islice(self._router.streams.items(), self._most_ranks)
        ]
        yield GaugeFamily(
            "kvatlas_ranks_not_shown",
            "Ranks beyond metrics.ranks, which have no metrics of their own.",
            max(0, len(self._router.streams) - self._most_ranks),
        )
        for table in _RANKS:
            yield table.read(ranks)
        for field, (name, text) in _FRAME_COUNTS.items():
            family = CounterFamily(name, text, labels=["pod", "rank"])
            for rank in ranks:
                labels = [rank.worker.pod, str(rank.worker.rank)]
                family.add_metric(labels, rank.report.counts[field])
            yield family

    def _findings(self) -> Metric:
        family = GaugeFamily(
            "kvatlas_misconfigurations", "What looks misconfigured.", labels=["kind", "model"]
        )
        findings = Counter((f.kind, f.model) for f in self._diagnostics.findings())
        for labels, count in findings.items():
            family.add_metric(labels, count)
        return family

    @staticmethod
    def _snapshot_families(snapshots: Snapshots) -> Iterator[Metric]:
        yield from _read(_SNAPSHOTS, snapshots)
        if snapshots.written_at is not None:
            yield GaugeFamily(
                "kvatlas_snapshot_age_seconds",
                "Time since the newest snapshot was written.",
                time.time() - snapshots.written_at,
            )


def _read(values: _Values[_T], source: _T) -> Iterator[Metric]:
    for family, name, text, read in values:
        yield family(name, text, read(source))
