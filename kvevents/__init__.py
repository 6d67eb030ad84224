"""ZMQ frames -> events -> index writes, and how much to trust the outcome.

In path order: `intake` starts and stops it all; `subscriber` bytes arrive, `connections` through
which connection, `frame` parts -> frame, `source` who speaks, `link` who through what; `events`
payload -> typed events over `reader` (compiled); `ingest` whose stream a frame is of (`lobby` while
it is not known whether it is ours), `stream` one worker's, `report` what is told of it; there
`continuity` which frame comes next, over `progress` how far it has got, `steps` its words, `life`
what is remembered of an engine, `held` frames that wait, and `trust` the states; `replays` asks for
what is missing, `scout` who is there before anybody has spoken; `applier` event -> index write,
with `extra_keys` what an event says besides tokens, `groups` of which kind the engine's caches are,
`spread` where in a wide block what is, `tiers` the names of media, and `orphans` blocks that wait
for their parents; `budget` memory for all that waits.
`recording` frames to a file and back, `playback` published again; `simulated` a pod to try it with.
"""

from __future__ import annotations

from kvevents.listener import Listener
from kvevents.pending import Ownership
from kvevents.router import EventPolicy, FrameRouter
from kvevents.source import ExtraStrings, Publisher, Source, UnknownPublisherError
from kvevents.stream import Applier, EngineSettings, EventCounts, StreamReport, WorkerStream
from kvevents.tools import (
    PlaybackError,
    RecordedFrame,
    RecordingError,
    format_frame,
    play,
    read_recording,
)
from kvevents.transport import Frame, FrameError, SubscribeError, Subscriber, parse_frame
from kvevents.wire import (
    AllBlocksCleared,
    Batch,
    BlockRemoved,
    BlockStored,
    PayloadError,
    decode_batch,
)

__all__ = [
    "AllBlocksCleared",
    "Applier",
    "Batch",
    "BlockRemoved",
    "BlockStored",
    "EngineSettings",
    "EventCounts",
    "EventPolicy",
    "ExtraStrings",
    "Frame",
    "FrameError",
    "FrameRouter",
    "Listener",
    "Ownership",
    "PayloadError",
    "PlaybackError",
    "Publisher",
    "RecordedFrame",
    "RecordingError",
    "Source",
    "StreamReport",
    "SubscribeError",
    "Subscriber",
    "UnknownPublisherError",
    "WorkerStream",
    "decode_batch",
    "format_frame",
    "parse_frame",
    "play",
    "read_recording",
]
