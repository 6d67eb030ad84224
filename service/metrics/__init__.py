"""Prometheus metrics, read at each scrape, so that nothing else knows about them.

In path order:

    server          serves them on a port of their own
    http            a small HTTP server
    calls           how many calls, by outcome, and how long they took
    answers         how much of the prompts was held, and how far to rely on it
    histogram       how often values fell into each bucket
    build           the process, what runs in it, the background loops that have died
    state           the index, the events, the diagnostics, the snapshots
    events          how long events take to the index, and who records them
    replication     the other replicas, and the store
    tokenization    what is tokenized, how long it takes, what the caches save
    routing         what was promised for routed requests, and what engines delivered
    refusals        calls that a listener refuses
"""

from __future__ import annotations

from service.metrics.answers import AnswerMetrics
from service.metrics.build import LoopCollector, register_process
from service.metrics.calls import STREAM_REQUEST, CallMetrics, CallOrigin, MethodCalls
from service.metrics.events import EventLagCollector, RecordingCollector
from service.metrics.refusals import ListenerRefusals
from service.metrics.replication import ReplicationCollector
from service.metrics.routing import RoutingCollector
from service.metrics.server import MetricsServer
from service.metrics.state import StateCollector
from service.metrics.tokenization import TokenizationCollector

__all__ = [
    "STREAM_REQUEST",
    "AnswerMetrics",
    "CallMetrics",
    "CallOrigin",
    "EventLagCollector",
    "ListenerRefusals",
    "LoopCollector",
    "MethodCalls",
    "MetricsServer",
    "RecordingCollector",
    "ReplicationCollector",
    "RoutingCollector",
    "StateCollector",
    "TokenizationCollector",
    "register_process",
]
