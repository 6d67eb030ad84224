"""Metrics of routed requests: what is speculative, what was promised, what was delivered."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily as CounterFamily
from prometheus_client.core import GaugeMetricFamily as GaugeFamily
from prometheus_client.registry import Collector
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.metrics_core import Metric

    from service.routing import DeliveredTokens, Routing

_COUNTS: tuple[tuple[str, str, Callable[[DeliveredTokens], int]], ...] = (
    ("outcomes", "Outcomes reported.", lambda each: each.outcomes),
    ("promised_tokens", "Reusable tokens of answers, for them.", lambda each: each.promised),
    ("delivered_tokens", "Tokens that engines had cached.", lambda each: each.delivered),
    ("missing_tokens", "Tokens promised and not delivered.", lambda each: each.missing),
)


class RoutingCollector(Collector):
    """Handles, decisions and outcomes, read at each scrape."""

    def __init__(self, routing: Routing, ranks: int) -> None:
        """Args: ranks: how many ranks of pods have metrics of their own."""
        self._routing = routing
        self._ranks = ranks

    @override
    def collect(self) -> Iterator[Metric]:
        routing, decisions = self._routing, self._routing.decisions
        yield GaugeFamily("kvatlas_handles", "Handles that can be recorded.", len(routing.handles))
        yield GaugeFamily(
            "kvatlas_routings_speculative", "Routings whose blocks are speculative.", len(decisions)
        )
        ended = CounterFamily(
            "kvatlas_routings_ended", "Routings that are not speculative any more.", labels=["why"]
        )
        for why in ("confirmed", "expired", "pod_left", "restarted"):
            ended.add_metric([why], decisions.ended[why])
        yield ended
        lost = CounterFamily(
            "kvatlas_routings_lost",
            "Handles, routings and outcomes that were dropped or did not get through.",
            labels=["why"],
        )
        for why, count in routing.lost().items():
            lost.add_metric([why], count)
        yield lost
        yield from self._outcomes()

    def _outcomes(self) -> Iterator[Metric]:
        for name, text, value in _COUNTS:
            family = CounterFamily(f"kvatlas_{name}", text, labels=["pod", "rank", "model"])
            for (worker, model), each in islice(
                list(self._routing.outcomes.all().items()), self._ranks
            ):
                family.add_metric([worker.pod, str(worker.rank), model], value(each))
            yield family
        by_source = CounterFamily(
            "kvatlas_delivered_tokens_by_source",
            "Tokens that engines had cached, by where they had them, as far as they tell.",
            labels=["pod", "rank", "model", "source"],
        )
        for (worker, model), each in islice(
            list(self._routing.outcomes.all().items()), self._ranks
        ):
            for source, tokens in each.by_source.items():
                by_source.add_metric([worker.pod, str(worker.rank), model, source], tokens)
        yield by_source
