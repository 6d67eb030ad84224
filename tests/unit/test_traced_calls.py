"""Which span is whose, where calls and requests within streams begin and end."""

from __future__ import annotations

from collections import Counter
from contextvars import copy_context

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry

from service.metrics import STREAM_REQUEST, CallMetrics
from service.tracing.calls import TracedCalls, TracedRequests
from service.tracing.current import current, traced
from service.tracing.sampling import Sampling

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"


class Origin:
    def __init__(self, flag: str = "") -> None:
        self._metadata = [("traceparent", PARENT + flag)] if flag else []

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return self._metadata


SAMPLED, UNSAMPLED, SILENT = Origin("1"), Origin("0"), Origin()


class Traced:
    """Calls whose spans are kept, of callers who trace or not."""

    def __init__(self) -> None:
        self._kept = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self._tracer: Tracer = provider.get_tracer("test")

    def calls(self, method: str = "Score", kind: str = "unary") -> TracedCalls:
        return TracedCalls(self._tracer, Sampling(0.0), "s", method, kind)

    def requests(self) -> TracedRequests:
        arguments = ("s", "Stream", STREAM_REQUEST, Counter[str]())
        return TracedRequests(self._tracer, Sampling(0.0), *arguments)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._kept.get_finished_spans())


@pytest.fixture
def kept() -> Traced:
    return Traced()


def in_a_task_of_its_own(test: object) -> None:
    copy_context().run(test)  # type: ignore[arg-type]


@pytest.mark.parametrize("origin", [UNSAMPLED, SILENT])
def test_a_call_that_inherits_an_earlier_one_is_not_a_part_of_it(
    kept: Traced, origin: Origin
) -> None:
    def body() -> None:
        calls = kept.calls()
        calls.begin(SAMPLED)
        inherited = copy_context()
        calls.end("OK", 0.1)

        def later() -> None:
            assert traced() is not None
            calls.begin(origin)
            assert traced() is None
            assert "trace_id" not in structlog.contextvars.get_contextvars()
            calls.end("OK", 0.1)

        inherited.run(later)

    in_a_task_of_its_own(body)
    assert len(kept.spans) == 1


def test_an_inherited_call_is_not_ended_again_by_a_sampled_one(kept: Traced) -> None:
    def body() -> None:
        calls = kept.calls()
        calls.begin(SAMPLED)
        calls.begin(SAMPLED)
        calls.end("OK", 0.1)
        assert current.get() is None

    in_a_task_of_its_own(body)
    assert len(kept.spans) == 1


def test_a_stream_s_request_ends_itself_and_not_the_stream(kept: Traced) -> None:
    def body() -> None:
        stream, requests = kept.calls("Stream", "bidi_stream"), kept.requests()
        stream.begin(SAMPLED)
        of_stream = traced()
        for origin in (SILENT, UNSAMPLED, SAMPLED):
            requests.begin(origin)
            assert (traced() is None) is (origin is UNSAMPLED)
            bound = "trace_id" in structlog.contextvars.get_contextvars()
            assert bound is (origin is not UNSAMPLED)
            requests.end("OK", 0.1)
            assert traced() is of_stream
        stream.end("CANCELLED", 1.0)
        assert current.get() is None
        assert "trace_id" not in structlog.contextvars.get_contextvars()

    in_a_task_of_its_own(body)
    assert [span.name for span in kept.spans] == ["s/Stream request"] * 2 + ["s/Stream"]


def test_requests_of_a_stream_that_is_not_traced_are_not_either(kept: Traced) -> None:
    def body() -> None:
        stream, requests = kept.calls("Stream", "bidi_stream"), kept.requests()
        stream.begin(UNSAMPLED)
        requests.begin(SILENT)
        requests.end("OK", 0.1)
        requests.begin(SAMPLED)
        requests.end("OK", 0.1)
        stream.end("OK", 1.0)

    in_a_task_of_its_own(body)
    assert [span.name for span in kept.spans] == ["s/Stream request"]


def test_a_method_that_two_listeners_have_is_counted_once() -> None:
    metrics = CallMetrics(CollectorRegistry())
    one, other = (metrics.method("s", "m", "unary") for _ in range(2))
    assert one is other
    assert metrics.method("s", "n", "unary") is not one
