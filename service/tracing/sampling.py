"""The metadata of a call -> whether it is traced, and which trace it continues.

Most calls are not traced. For them this is all that happens, so it is done before the library is
asked for anything, which takes ten times as long.
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from collections.abc import Iterable

    Metadata = Iterable[tuple[str, str | bytes]]

_PARENT = "traceparent"
_STATE = "tracestate"
# Of any version: a later one may have more behind the flags.
_PARENT_FORM = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-([0-9a-f]{2})(?:-|$)")
_SAMPLED = 1
_NO_PARENT = Context()

_propagator = TraceContextTextMapPropagator()


class Sampling:
    """Follows the caller's decision; without one, traces calls at random.

    Args:
        ratio: of the calls without a parent that are traced, from 0 to 1.
    """

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio

    def decide(self, metadata: Metadata) -> Context | None:
        """Return what the span of a call continues, empty for a new trace; None: no span."""
        parents = [value for name, value in metadata if name == _PARENT]
        if not parents:
            return self.decide_anew()
        form = _PARENT_FORM.match(parents[0]) if isinstance(parents[0], str) else None
        if form is not None and not int(form[1], 16) & _SAMPLED:
            return None
        # Two parents are none, and neither is one that is malformed.
        context = _extracted(metadata) if form is not None and len(parents) == 1 else _NO_PARENT
        if not get_current_span(context).get_span_context().is_valid:
            return self.decide_anew()
        return context

    def decide_anew(self) -> Context | None:
        """Return an empty context for a call that begins a trace; None: no span."""
        if self._ratio and random.random() < self._ratio:  # noqa: S311 - no secret
            return _NO_PARENT
        return None


def has_parent(metadata: Metadata) -> bool:
    """Whether the caller says which trace its call belongs to."""
    return any(name == _PARENT for name, _ in metadata)


def _extracted(metadata: Metadata) -> Context:
    carrier: dict[str, list[str]] = {}
    for name, value in metadata:
        if name in (_PARENT, _STATE) and isinstance(value, str):
            carrier.setdefault(name, []).append(value)
    return _propagator.extract(carrier, Context())
