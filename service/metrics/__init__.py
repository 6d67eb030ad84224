"""TODO map."""

from __future__ import annotations

from service.metrics.replication import ReplicationCollector
from service.metrics.state import CallMetrics, MetricsServer, StateCollector
from service.metrics.tokenization import TokenizationCollector

__all__ = [
    "CallMetrics",
    "MetricsServer",
    "ReplicationCollector",
    "StateCollector",
    "TokenizationCollector",
]
