"""Prometheus metrics, on a port of their own.

Calls are observed as they end; all else is read from the index and the streams at each scrape, so
that neither of them knows about metrics.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Self

from prometheus_client import CollectorRegistry, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from indexer import COMPILED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from threading import Thread
    from wsgiref.simple_server import WSGIServer

    from prometheus_client.metrics_core import Metric

    from indexer import MemoryIndex
    from kvevents import FrameRouter
    from service.diagnostics import Diagnostics
    from service.snapshot import Snapshots

_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.4, 1.0)

_COUNTS = {
    "gaps": "Holes seen in the sequence numbers.",
    "frames_missed": "Frames never received, by sequence.",
    "frames_replayed": "Frames applied from replays.",
    "frames_duplicates": "Frames that came twice.",
    "frames_late": "Frames that came after they had been given up.",
    "restarts": "Times another engine was found in a pod's place.",
    "replays": "Replays asked for.",
    "replay_failures": "Replays without a complete answer.",
    "frames_rivals": "Frames that another live connection sent in a pod's name.",
    "overflows": "Times memory ran out for frames that waited for a replay.",
}


class CallMetrics:
    """Latency and outcome of calls: `kvatlas_rpc_duration_seconds` by method and status."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._durations = Histogram(
            "kvatlas_rpc_duration_seconds",
            "Time from a parsed request to its answer, by method and gRPC status.",
            ["method", "status"],
            buckets=_BUCKETS,
            registry=registry,
        )

    def of(self, method: str) -> Callable[[str, float], None]:
        """A function that takes the status and the seconds of one call of `method`."""
        children: dict[str, Histogram] = {}

        def observe(status: str, seconds: float) -> None:
            child = children.get(status)
            if child is None:
                child = children[status] = self._durations.labels(method, status)
            child.observe(seconds)

        return observe


class StateCollector(Collector):
    """What the index holds and what became of the events, read at each scrape."""

    def __init__(
        self,
        index: MemoryIndex,
        ingest: FrameRouter,
        misconfiguration: Diagnostics,
        snapshots: Snapshots | None = None,
    ) -> None:
        self._index = index
        self._ingest = ingest
        self._misconfiguration = misconfiguration
        self._snapshots = snapshots

    def collect(self) -> Iterator[Metric]:
        """All families."""
        yield GaugeMetricFamily(
            "kvatlas_kernel_compiled", "1 if the kernel is compiled, 0 if not.", int(COMPILED)
        )
        yield from self._index_families()
        yield from self._event_families()
        yield self._suspicions()
        if self._snapshots is not None:
            yield from self._snapshot_families(self._snapshots)

    def _index_families(self) -> Iterator[Metric]:
        table = self._index.table
        yield GaugeMetricFamily("kvatlas_index_blocks", "Distinct blocks.", table.block_count)
        yield GaugeMetricFamily(
            "kvatlas_index_mappings", "Engine hashes whose block is known.", table.mapping_count
        )
        yield GaugeMetricFamily(
            "kvatlas_index_holder_sets", "Distinct sets of holders.", table.sets.live
        )
        yield GaugeMetricFamily("kvatlas_index_bytes", "Bytes the index uses.", table.bytes_used)
        yield GaugeMetricFamily("kvatlas_index_limit_bytes", "Bytes it may use.", table.limit_bytes)
        yield CounterMetricFamily(
            "kvatlas_index_evicted_blocks",
            "Blocks evicted for the memory limit.",
            table.evicted_blocks,
        )
        yield CounterMetricFamily(
            "kvatlas_index_evicted_mappings",
            "Engine hashes evicted for the memory limit.",
            table.evicted_mappings,
        )
        held = GaugeMetricFamily(
            "kvatlas_pod_blocks", "Blocks a pod holds.", labels=["pod", "rank", "model", "tier"]
        )
        for worker, model, by_tier in (
            (blocks.worker, blocks.model, blocks.by_tier) for blocks in self._index.workers()
        ):
            for tier, blocks in by_tier.items():
                held.add_metric([worker.pod, str(worker.rank), model, tier], blocks)
        yield held

    def _suspicions(self) -> Metric:
        family = GaugeMetricFamily(
            "kvatlas_misconfigurations", "What looks misconfigured.", labels=["kind", "model"]
        )
        found = Counter((s.kind, s.model) for s in self._misconfiguration.found())
        for labels, count in found.items():
            family.add_metric(labels, count)
        return family

    @staticmethod
    def _snapshot_families(snapshots: Snapshots) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "kvatlas_snapshots_written", "Snapshots written.", snapshots.written
        )
        yield CounterMetricFamily(
            "kvatlas_snapshots_failed", "Snapshots that could not be written.", snapshots.failed
        )
        yield GaugeMetricFamily(
            "kvatlas_snapshot_bytes", "Size of the newest snapshot.", snapshots.size
        )
        yield GaugeMetricFamily(
            "kvatlas_snapshot_seconds", "Time the newest snapshot took.", snapshots.seconds
        )
        if snapshots.written_at is not None:
            yield GaugeMetricFamily(
                "kvatlas_snapshot_age_seconds",
                "Time since the newest snapshot was written.",
                time.time() - snapshots.written_at,
            )

    def _event_families(self) -> Iterator[Metric]:
        pod = ["pod", "rank"]
        events = CounterMetricFamily(
            "kvatlas_events", "Events applied, by type.", labels=[*pod, "type"]
        )
        skipped = CounterMetricFamily(
            "kvatlas_events_skipped",
            "Events and blocks not applied, by reason.",
            labels=[*pod, "reason"],
        )
        age = GaugeMetricFamily(
            "kvatlas_last_event_age_seconds", "Time since a pod's last frame.", labels=pod
        )
        state = GaugeMetricFamily(
            "kvatlas_pod_state", "1 for the pod's state of trust.", labels=[*pod, "state", "reason"]
        )
        orphans = GaugeMetricFamily(
            "kvatlas_orphan_blocks", "Blocks that wait for their parents or tokens.", labels=pod
        )
        now = time.monotonic()
        for worker, stream in list(self._ingest.streams.items()):
            labels = [worker.pod, str(worker.rank)]
            for kind, count in list(stream.applier.counts.events.items()):
                events.add_metric([*labels, kind], count)
            for reason, count in list(stream.applier.counts.skipped.items()):
                skipped.add_metric([*labels, reason], count)
            standing = stream.trust_status(now)
            state.add_metric([*labels, standing.state.value, standing.reason], 1)
            orphans.add_metric(labels, stream.applier.orphans.blocks)
            if stream.signs_of_life.last_frame is not None:
                age.add_metric(labels, now - stream.signs_of_life.last_frame)
        frames = CounterMetricFamily(
            "kvatlas_frames_skipped", "Frames of no known pod, by reason.", labels=["reason"]
        )
        for reason, count in list(self._ingest.skipped.items()):
            frames.add_metric([reason], count)
        yield CounterMetricFamily("kvatlas_frames", "Frames received.", self._ingest.frames)
        yield CounterMetricFamily(
            "kvatlas_ranks_departed", "Ranks forgotten for their silence.", self._ingest.departed
        )
        yield GaugeMetricFamily(
            "kvatlas_waiting_bytes",
            "Memory of frames that wait for replays and blocks that wait for parents.",
            self._ingest.budget.used,
        )
        yield from (events, skipped, age, state, orphans, frames)
        yield from self._count_families()

    def _count_families(self) -> Iterator[Metric]:
        for name, what in _COUNTS.items():
            family = CounterMetricFamily(f"kvatlas_{name}", what, labels=["pod", "rank"])
            for worker, stream in list(self._ingest.streams.items()):
                count = getattr(stream.sequencer.counts, name.removeprefix("frames_"))
                family.add_metric([worker.pod, str(worker.rank)], count)
            yield family


class MetricsServer:
    """An `async with` block in which `registry` is served over HTTP at `listen`."""

    def __init__(self, registry: CollectorRegistry, listen: str) -> None:
        self._registry = registry
        self._host, _, port = listen.rpartition(":")
        self._port = int(port)
        self._server: WSGIServer | None = None
        self._thread: Thread | None = None

    async def __aenter__(self) -> Self:
        """Raises OSError if the address cannot be bound."""
        self._server, self._thread = start_http_server(
            self._port, self._host.strip("[]"), self._registry
        )
        return self

    @property
    def port(self) -> int:
        """The port in use."""
        return self._server.server_port if self._server else self._port

    async def __aexit__(self, *exc_info: object) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
