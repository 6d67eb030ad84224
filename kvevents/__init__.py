"""ZMQ frames -> events -> index writes, and how far to trust the outcome.

In path order:

    listener       sockets, router, replays and timers, started and stopped together
    router         a frame -> the stream of its worker
    frame_decoder  frames -> batches, long ones in slices
    skipped        what was dropped before it reached a stream
    source         where frames come from, and which pod and model published them
    joining        which workers join
    pending        frames of workers whose owner is not known yet
    saved_streams  the streams of all workers, for a snapshot
    probe          finds out which model and rank is behind a source
    limited_log    what happens to pods, in a limited number of lines
    lag            how long events take to the index
    budget         bytes that several owners share
    transport      bytes in and out over ZMQ
    wire           bytes of a payload -> typed events
    kernel         the compiled msgpack reader
    sequencing     frames in order: which are missing, and of which engine they are
    trust          how far what is claimed of a worker can be trusted
    replaying      runs the replays that streams request
    stream         one worker's stream
    applying       event -> index writes
    tools          recording, playback, and a simulated pod
"""

from __future__ import annotations

from kvevents.applying import Applier, EngineSettings, EventCounts, SeenRoots
from kvevents.lag import EventLag
from kvevents.listener import Listener
from kvevents.pending import Owner, Ownership, OwnsEverything
from kvevents.router import FrameRouter
from kvevents.source import Curve, Publisher, Source, UnknownPublisherError
from kvevents.stream import (
    EventPolicy,
    FleetLimits,
    RecentEvent,
    StreamReport,
    WorkerStream,
    check_dump,
    dump_stream,
    has_every_frame,
    report_of,
)
from kvevents.tools import (
    PlaybackError,
    RecordedFrame,
    RecordingError,
    TooManyRecordersError,
    format_frame,
    play,
    read_recording,
)
from kvevents.transport import (
    Frame,
    FrameError,
    SocketLimits,
    SubscribeError,
    Subscriber,
    parse_frame,
    raise_descriptor_limit,
)
from kvevents.wire import (
    AllBlocksCleared,
    Batch,
    BlockRemoved,
    BlockStored,
    ExtraStrings,
    FrameLimits,
    PayloadError,
    decode_batch,
)

__all__ = [
    "AllBlocksCleared",
    "Applier",
    "Batch",
    "BlockRemoved",
    "BlockStored",
    "Curve",
    "EngineSettings",
    "EventCounts",
    "EventLag",
    "EventPolicy",
    "ExtraStrings",
    "FleetLimits",
    "Frame",
    "FrameError",
    "FrameLimits",
    "FrameRouter",
    "Listener",
    "Owner",
    "Ownership",
    "OwnsEverything",
    "PayloadError",
    "PlaybackError",
    "Publisher",
    "RecentEvent",
    "RecordedFrame",
    "RecordingError",
    "SeenRoots",
    "SocketLimits",
    "Source",
    "StreamReport",
    "SubscribeError",
    "Subscriber",
    "TooManyRecordersError",
    "UnknownPublisherError",
    "WorkerStream",
    "check_dump",
    "decode_batch",
    "dump_stream",
    "format_frame",
    "has_every_frame",
    "parse_frame",
    "play",
    "raise_descriptor_limit",
    "read_recording",
    "report_of",
]
