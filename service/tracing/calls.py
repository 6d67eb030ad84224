"""Spans of calls, and of the requests within streams: where calls are counted, they are traced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from typing_extensions import override

from service.metrics import MethodCalls
from service.tracing.current import CurrentCall, current
from service.tracing.sampling import has_parent

if TYPE_CHECKING:
    from collections import Counter

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

    from service.metrics import CallOrigin
    from service.tracing.sampling import Sampling

_MANY = {"ScoreMany"}
# Of these the conventions say that the server is at fault. Others are the caller's.
_FAULTS = {
    "UNKNOWN",
    "DEADLINE_EXCEEDED",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
}
_MOST_REQUESTS = 128
"""Requests of one stream below its own span. A stream may be open for days, and would be a trace
without an end; requests that say themselves what they belong to have no limit."""


class TracedCalls(MethodCalls):
    """The calls of one method, traced."""

    __slots__ = ("_attributes", "_name", "_sampling", "_tracer")

    def __init__(
        self, tracer: Tracer, sampling: Sampling, service: str, method: str, kind: str
    ) -> None:
        super().__init__(service, method, kind)
        self._tracer = tracer
        self._sampling = sampling
        self._name = f"{service}/{method}"
        self._attributes = {"rpc.system.name": "grpc", "rpc.method": self._name}

    @override
    def begin(self, origin: CallOrigin) -> None:
        super().begin(origin)
        metadata = origin.invocation_metadata() or ()
        parent = self._sampling.decide(metadata)
        if parent is None and self.kind != "bidi_stream":
            if current.get() is not None:
                _forget()
            return
        call = CurrentCall(self._tracer, None if parent is None else self._start(parent))
        if self.kind == "bidi_stream":
            call.continued = parent is not None if has_parent(metadata) else None
        call.parts = self.method in _MANY
        self._enter(call)

    @override
    def end(self, code: str, seconds: float) -> None:
        super().end(code, seconds)
        call = current.get()
        if call is None:
            return
        if call.span is not None:
            end_span(call.span, code)
            self.outcomes[code].exemplify(seconds, {"trace_id": call.trace_id})
        self._leave(call)

    def _start(self, parent: Context, links: list[Link] | None = None) -> Span:
        return self._tracer.start_span(self._name, parent, SpanKind.SERVER, self._attributes, links)

    @staticmethod
    def _enter(call: CurrentCall) -> None:
        current.set(call)
        if call.span is not None:
            structlog.contextvars.bind_contextvars(trace_id=call.trace_id)
        else:
            structlog.contextvars.unbind_contextvars("trace_id")

    @staticmethod
    def _leave(call: CurrentCall) -> None:
        outer = call.outer
        if outer is None:
            _forget()
            return
        current.set(outer)
        if outer.span is not None:
            structlog.contextvars.bind_contextvars(trace_id=outer.trace_id)
        elif call.span is not None:
            structlog.contextvars.unbind_contextvars("trace_id")


class TracedRequests(TracedCalls):
    """The requests within streams, each of which is a call to its caller.

    A request that names its own parent continues that trace; gateways hold one stream for requests
    of many. Others are below the stream's span if the stream's caller wants that traced, and else
    sampled as calls without a parent are.
    """

    __slots__ = ("_dropped",)

    def __init__(
        self,
        tracer: Tracer,
        sampling: Sampling,
        service: str,
        method: str,
        kind: str,
        dropped: Counter[str],
    ) -> None:
        super().__init__(tracer, sampling, service, method, kind)
        self._name += " request"
        self._dropped = dropped

    @override
    def begin(self, origin: CallOrigin) -> None:
        MethodCalls.begin(self, origin)
        stream, metadata = current.get(), origin.invocation_metadata()
        if metadata:
            parent = self._sampling.decide(metadata)
        elif stream is None or stream.continued is None:
            parent = self._sampling.decide_anew()
        else:
            parent = self._below(stream)
        span = None
        if parent is not None:
            of_stream = None if stream is None or stream.span is None else stream.span
            links = [] if of_stream is None else [Link(of_stream.get_span_context())]
            span = self._start(parent, links)
        self._enter(CurrentCall(self._tracer, span, stream))

    def _below(self, stream: CurrentCall) -> Context | None:
        if not stream.continued:
            return None
        if stream.requests >= _MOST_REQUESTS:
            self._dropped["stream"] += 1
            return None
        stream.requests += 1
        return stream.context


def _forget() -> None:
    """Belong to no call any more.

    A new call may inherit an earlier one: a task that lets its connection be read again passes its
    context on to whatever that connection brings.
    """
    current.set(None)
    structlog.contextvars.unbind_contextvars("trace_id")


def end_span(span: Span, code: str) -> None:
    """End the span of a call, given the name of its gRPC status."""
    span.set_attribute("rpc.response.status_code", code)
    if code in _FAULTS:
        span.set_attribute("error.type", code)
        span.set_status(Status(StatusCode.ERROR))
    span.end()
