"""The traced call that the running code belongs to.

Each call runs in a task of its own, and the tasks that it starts inherit what is current.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.trace import Status, StatusCode, format_trace_id, set_span_in_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.trace import Span, Tracer
    from opentelemetry.util.types import AttributeValue

    Attributes = dict[str, AttributeValue]

MODEL = "gen_ai.request.model"


class CurrentCall:
    """A call, or a request within a stream.

    Args:
        tracer: makes its spans.
        span: of the call; None if it is not traced.
        outer: what it is a part of.
    """

    __slots__ = ("context", "continued", "outer", "parts", "requests", "span", "tracer")

    def __init__(self, tracer: Tracer, span: Span | None, outer: CurrentCall | None = None) -> None:
        self.tracer = tracer
        self.span = span
        self.outer = outer
        self.context = None if span is None else set_span_in_context(span, Context())
        self.parts = False
        """Whether several prompts come with it, each of which has a span of its own."""
        self.continued: bool | None = None
        """Of a stream: whether its caller wants it traced; None: the caller says nothing."""
        self.requests = 0
        """Of a stream: how many of its requests have spans below the stream's."""

    @property
    def trace_id(self) -> str:
        """In hexadecimal digits; empty if the call is not traced."""
        return "" if self.span is None else format_trace_id(self.span.get_span_context().trace_id)

    @contextmanager
    def step(self, name: str, attributes: Attributes) -> Iterator[Span]:
        """A span for what is done within the `with` block."""
        span = self.tracer.start_span(name, self.context, attributes=attributes)
        try:
            yield span
        except BaseException as error:
            # The text of an error may quote the prompt.
            span.set_attribute("error.type", type(error).__qualname__)
            span.set_status(Status(StatusCode.ERROR))
            raise
        finally:
            span.end()


current: ContextVar[CurrentCall | None] = ContextVar("kvatlas traced call", default=None)


def traced() -> CurrentCall | None:
    """Return the call that is running if it is traced, else None."""
    call = current.get()
    return None if call is None or call.span is None else call
