"""Traces of calls, as OpenTelemetry has them. Imported only if they are configured.

In path order:

    tracer          everything that follows, put together: spans of calls and of their steps
    sampling        the metadata of a call -> whether it is traced, and which trace it continues
    current         the traced call that the running code belongs to
    calls           spans of calls, and of the requests within streams
    prompts         spans of tokenization
    scorer          spans of what is done for one prompt
    span_queue      ended spans, until a thread has sent them
    span_counts     what became of spans, as metrics
    collector       sends spans to a collector, over HTTP

Nothing of a prompt gets into a span: no text, no token id, no block key, no salt. Spans have names,
counts and durations. A call that is not traced has no object of OpenTelemetry made for it.
"""

from __future__ import annotations

from service.tracing.tracer import CallTracer

__all__ = ["CallTracer"]
