"""Metrics of the process, of what runs in it, and of its background loops."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from prometheus_client import GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from indexer import COMPILED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from service.loops import Loops


def register_process(registry: CollectorRegistry, processes: int, restarts: int) -> None:
    """Add CPU, memory, files, garbage collections and the versions to a registry.

    Args:
        processes: how many serve as one.
        restarts: how often this one has been started again; 0 if it is the only one.
    """
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(_BuildCollector())
    registry.register(_ProcessesCollector(processes, restarts))


class _BuildCollector(Collector):
    """What is running: `kvatlas_build_info`."""

    def __init__(self) -> None:
        try:
            own = version("kvatlas")
        except PackageNotFoundError:  # run from its sources
            own = "unknown"
        self._labels = {
            "version": own,
            "compiled": str(COMPILED).lower(),
            "python": platform.python_version(),
        }

    @override
    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("kvatlas_build", "What is running.", self._labels)


class _ProcessesCollector(Collector):
    """Of how many processes this is one, and how often it was started again."""

    def __init__(self, processes: int, restarts: int) -> None:
        self._processes = processes
        self._restarts = restarts

    @override
    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "kvatlas_processes",
            "How many processes serve as one; the metrics of each are at the next port.",
            value=self._processes,
        )
        yield CounterMetricFamily(
            "kvatlas_process_restarts",
            "How often this process has ended and was started again, if it is one of several.",
            value=self._restarts,
        )


class LoopCollector(Collector):
    """How often each background loop has died and was started again."""

    def __init__(self, loops: Loops) -> None:
        self._loops = loops

    @override
    def collect(self) -> Iterator[Metric]:
        deaths = CounterMetricFamily(
            "kvatlas_loop_deaths",
            "Background loops that died of an error and were started again.",
            labels=["loop"],
        )
        for name, count in self._loops.deaths.items():
            deaths.add_metric([name], count)
        yield deaths
