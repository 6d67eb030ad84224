"""Which calls are traced, by what their callers say."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from opentelemetry.trace import get_current_span

from service.tracing.sampling import Sampling, has_parent

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
Metadata = Sequence[tuple[str, str | bytes]]


def trace_of(metadata: Metadata, ratio: float) -> str | None:
    """The trace that is continued, empty for a new one; None if there is no span."""
    context = Sampling(ratio).decide(metadata)
    if context is None:
        return None
    found = get_current_span(context).get_span_context()
    return f"{found.trace_id:032x}" if found.is_valid else ""


@pytest.mark.parametrize("ratio", [0.0, 1.0])
@pytest.mark.parametrize(
    ("value", "trace"),
    [
        (SAMPLED, TRACE),
        (f"00-{TRACE}-{PARENT}-00", None),
        (f"00-{TRACE}-{PARENT}-03", TRACE),
        (f"00-{TRACE}-{PARENT}-02", None),
        (f"42-{TRACE}-{PARENT}-01-and-more", TRACE),
    ],
)
def test_the_caller_decides_whatever_the_ratio(value: str, trace: str | None, ratio: float) -> None:
    assert trace_of([("user-agent", "x"), ("traceparent", value)], ratio) == trace


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [("traceparent", "")],
        [("traceparent", "nonsense")],
        [("traceparent", b"bytes")],
        [("traceparent", SAMPLED), ("traceparent", SAMPLED)],
        [("traceparent", f"00-{'0' * 32}-{PARENT}-01")],
        [("traceparent", f"00-{TRACE}-{'0' * 16}-01")],
        [("traceparent", f"ff-{TRACE}-{PARENT}-01")],
        [("traceparent", SAMPLED.upper())],
        [("tracestate", "a=b")],
    ],
)
def test_no_usable_parent_leaves_the_decision_to_the_ratio(metadata: Metadata) -> None:
    assert trace_of(metadata, 1.0) == ""
    assert trace_of(metadata, 0.0) is None


def test_the_ratio_is_of_the_calls_without_a_parent() -> None:
    sampling = Sampling(0.25)
    traced = sum(sampling.decide_anew() is not None for _ in range(4000))
    assert 800 < traced < 1200


def test_a_parent_that_is_not_usable_is_still_one_that_was_sent() -> None:
    assert has_parent([("traceparent", "nonsense")])
    assert not has_parent([("tracestate", "a=b")])
