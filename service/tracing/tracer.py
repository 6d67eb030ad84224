"""Everything that traces calls, put together."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Self

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from service.metrics import STREAM_REQUEST, MethodCalls
from service.tracing.calls import TracedCalls, TracedRequests
from service.tracing.collector import Collector
from service.tracing.prompts import TracedPromptReader
from service.tracing.sampling import Sampling
from service.tracing.scorer import TracedScorer
from service.tracing.span_counts import SpanCollector
from service.tracing.span_queue import SpanQueue

if TYPE_CHECKING:
    from prometheus_client.registry import Collector as PrometheusCollector

    from service.config import TracesSection
    from service.rpc import PromptReader, Scorer

_LONGEST_VALUE = 256  # characters of an attribute: names of models come off the wire


class CallTracer:
    """Traces calls and sends their spans, within an `async with` block.

    Nothing is set in the process: neither the global tracer of OpenTelemetry, nor a propagator.

    Args:
        section: where to, and how much.

    Raises OSError if the certificates cannot be read.
    """

    def __init__(self, section: TracesSection) -> None:
        self._queue = SpanQueue(section, Collector(section))
        resource = Resource(
            {
                "service.name": section.service_name,
                "service.instance.id": section.instance_name,
                "service.version": version("kvatlas"),
            }
        )
        # Each argument is given, as the defaults are taken from OTEL_ variables. Only calls that
        # `Sampling` has chosen get here.
        provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=resource,
            shutdown_on_exit=False,
            span_limits=SpanLimits(
                max_attributes=64,
                max_events=0,
                max_links=8,
                max_event_attributes=0,
                max_link_attributes=0,
                max_attribute_length=_LONGEST_VALUE,
                max_span_attribute_length=_LONGEST_VALUE,
            ),
        )
        provider.add_span_processor(self._queue)
        self._tracer = provider.get_tracer("kvatlas", version("kvatlas"))
        self._sampling = Sampling(section.sample_ratio)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Send what waits, within `stop_seconds`."""
        await asyncio.to_thread(self._queue.stop)

    @property
    def metrics(self) -> PrometheusCollector:
        """What became of spans."""
        return SpanCollector(self._queue.counts)

    def counting(self, service: str, method: str, kind: str) -> MethodCalls:
        """Return what counts and traces the calls of a method; see `CallMetrics`."""
        arguments = (self._tracer, self._sampling, service, method, kind)
        if kind == STREAM_REQUEST:
            return TracedRequests(*arguments, self._queue.counts.dropped)
        return TracedCalls(*arguments)

    def prompt_reader(self, *arguments: Any) -> PromptReader:
        """Return a `PromptReader` that is traced."""
        return TracedPromptReader(*arguments)

    def scorer(self, *arguments: Any) -> Scorer:
        """Return a `Scorer` that is traced."""
        return TracedScorer(*arguments)
