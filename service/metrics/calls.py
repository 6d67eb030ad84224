"""Metrics of the calls: how many, by outcome, how long they took, what they were refused for.

A call is counted as its caller saw it: CANCELLED if the caller has gone, DEADLINE_EXCEEDED if its
deadline was over before the answer. Every value is a plain number until a scrape asks for it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from service.metrics.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

_OWN_PACKAGE = "kvatlas.v1."
STREAM_REQUEST = "stream_request"
"""The kind of what is no method, but a request within a stream."""
_SCORING = _OWN_PACKAGE + "ScoringService"


class CallOrigin(Protocol):
    """Where a call comes from."""

    def invocation_metadata(self) -> Any:
        """Return the caller's metadata, pairs of names and values."""
        ...


class MethodCalls:
    """The calls of one method."""

    __slots__ = ("failed_answers", "kind", "method", "outcomes", "service", "started", "under_way")

    def __init__(self, service: str, method: str, kind: str) -> None:
        self.service = service
        self.method = method
        self.kind = kind
        self.started = 0
        self.under_way = 0
        self.failed_answers = 0
        self.outcomes: dict[str, Histogram] = {}

    def begin(self, origin: CallOrigin) -> None:  # noqa: ARG002 - who traces calls needs it
        """Count a call as started."""
        self.started += 1
        self.under_way += 1

    def end(self, code: str, seconds: float) -> None:
        """Count a started call as over, by the name of its status."""
        self.under_way -= 1
        outcome = self.outcomes.get(code)
        if outcome is None:
            outcome = self.outcomes[code] = Histogram()
        outcome.observe(seconds)

    @property
    def labels(self) -> list[str]:
        """Type, service and method, as `grpc_server_...` metrics have them."""
        return [self.kind, self.service, self.method]

    @property
    def name(self) -> str:
        """The method, with its service if that is not one of ours."""
        if self.service.startswith(_OWN_PACKAGE):
            return self.method
        return f"{self.service}/{self.method}"


class CallMetrics(Collector):
    """The calls of all methods, and what was refused."""

    def __init__(
        self,
        registry: CollectorRegistry,
        counting: Callable[[str, str, str], MethodCalls] = MethodCalls,
    ) -> None:
        """Take where to register, and what makes the counts of a service's method of a kind."""
        self._counting = counting
        self._calls: dict[tuple[str, str], MethodCalls] = {}
        self._refused: Counter[str] = Counter()
        self._limits: Counter[str] = Counter()
        self.stream_requests = counting(_SCORING, "ScoreStream", STREAM_REQUEST)
        """The requests of all streams, each of which is a call to its caller."""
        registry.register(self)

    def method(self, service: str, method: str, kind: str) -> MethodCalls:
        """Return what counts the calls of a method of a service, given its full name.

        It is the same for a service that several listeners have.

        kind: unary, server_stream or bidi_stream.
        """
        calls = self._calls.get((service, method))
        if calls is None:
            calls = self._calls[service, method] = self._counting(service, method, kind)
        return calls

    def refused(self, reason: str, limit: str = "") -> bool:
        """Count a call that failed, by its reason and the limit that it exceeded, if any.

        Returns whether it is the first one that exceeded the limit.
        """
        self._refused[reason] += 1
        if limit:
            self._limits[limit] += 1
        return self._limits[limit] == 1

    @override
    def collect(self) -> Iterator[Metric]:
        """All families."""
        yield _durations(
            "kvatlas_rpc_duration_seconds",
            "Time from a received request to its answer, by method and gRPC status.",
            self._calls.values(),
        )
        yield _durations(
            "kvatlas_stream_request_duration_seconds",
            "The same of the requests within streams, which are many in one call.",
            [self.stream_requests],
        )
        yield GaugeMetricFamily(
            "kvatlas_stream_requests_under_way",
            "Requests within streams that are under way.",
            self.stream_requests.under_way,
        )
        yield from self._conventional()
        yield _labelled(
            "kvatlas_rpc_failed_answers",
            "Calls with status OK whose answer says that they have failed.",
            ["service", "method"],
            {
                (m.service, m.method): m.failed_answers
                for m in self._calls.values()
                if m.failed_answers
            },
        )
        yield _labelled(
            "kvatlas_rpc_errors",
            "Calls that failed, by the reason in google.rpc.ErrorInfo.",
            ["reason"],
            {(reason,): count for reason, count in self._refused.items()},
        )
        yield _labelled(
            "kvatlas_limits_exceeded",
            "Calls refused because of a limit, by its setting in [limits].",
            ["limit"],
            {(limit,): count for limit, count in self._limits.items()},
        )

    def _conventional(self) -> Iterable[Metric]:
        labels = ["grpc_type", "grpc_service", "grpc_method"]
        started = CounterMetricFamily("grpc_server_started", "Calls started.", labels=labels)
        under_way = GaugeMetricFamily(
            "kvatlas_rpc_under_way", "Calls under way.", labels=["service", "method"]
        )
        handled = CounterMetricFamily(
            "grpc_server_handled", "Calls completed.", labels=[*labels, "grpc_code"]
        )
        handling = HistogramMetricFamily(
            "grpc_server_handling_seconds", "Time that calls took.", labels=labels
        )
        for method in self._calls.values():
            started.add_metric(method.labels, method.started)
            under_way.add_metric([method.service, method.method], method.under_way)
            total = Histogram()
            for code, outcome in method.outcomes.items():
                handled.add_metric([*method.labels, code], sum(outcome.counts))
                total.add(outcome)
            if method.outcomes:
                handling.add_metric(method.labels, total.buckets, total.total)
        return started, under_way, handled, handling


def _durations(name: str, text: str, methods: Collection[MethodCalls]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=["method", "status"])
    for method in methods:
        for code, outcome in method.outcomes.items():
            family.add_metric([method.name, code], outcome.buckets, outcome.total)
    return family


def _labelled(
    name: str, text: str, labels: list[str], values: dict[tuple[str, ...], int]
) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
