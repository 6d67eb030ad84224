"""TODO map."""

from __future__ import annotations

from indexer import TrustState, TrustStatus
from kvevents.stream.applier import Applier, EventCounts
from kvevents.stream.cache_groups import EngineSettings
from kvevents.stream.link import SourceConnections, StreamsByConnection
from kvevents.stream.orphans import Orphans
from kvevents.stream.replays import ReplayConnection, ReplayDriver, parse_answer
from kvevents.stream.report import StreamReport
from kvevents.stream.trust import ClassesInUse, Trust, class_of
from kvevents.stream.worker import WorkerStream

__all__ = [
    "Applier",
    "ClassesInUse",
    "EngineSettings",
    "EventCounts",
    "Orphans",
    "ReplayConnection",
    "ReplayDriver",
    "SourceConnections",
    "StreamReport",
    "StreamsByConnection",
    "Trust",
    "TrustState",
    "TrustStatus",
    "WorkerStream",
    "class_of",
    "parse_answer",
]
