"""One worker's stream: its frames in order, applied, and how far to trust the outcome.

In path order:

    registry       the streams of all workers
    worker         one stream
    performer      performs what the sequencer decides
    unfinished     frames that are applied in slices
    environment    what all streams share: policy, memory, callbacks
    connections    which connections are live, and which streams use them
    recent         the last events of a worker
    received       a frame off the wire -> a frame for the sequencer
    polling        when to ask for frames that were lost without a trace
    signs_of_life  when a worker was last heard
    report         a stream as answers, operators and metrics see it
    dump           a stream as plain values
"""

from __future__ import annotations

from kvevents.stream.dump import check_dump, dump_stream, has_every_frame
from kvevents.stream.environment import EventPolicy, FleetLimits
from kvevents.stream.received import fingerprint_of, received_frame
from kvevents.stream.recent import RecentEvent, RecentEvents
from kvevents.stream.registry import ReplayRunner, StreamRegistry
from kvevents.stream.report import StreamReport, report_of
from kvevents.stream.unfinished import Unfinished
from kvevents.stream.worker import WorkerStream

__all__ = [
    "EventPolicy",
    "FleetLimits",
    "RecentEvent",
    "RecentEvents",
    "ReplayRunner",
    "StreamRegistry",
    "StreamReport",
    "Unfinished",
    "WorkerStream",
    "check_dump",
    "dump_stream",
    "fingerprint_of",
    "has_every_frame",
    "received_frame",
    "report_of",
]
