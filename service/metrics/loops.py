"""Prometheus metrics of the background loops, read at each scrape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from service.loops import Loops


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
