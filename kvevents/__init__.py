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

from kvevents.applier import Applier, Tally
from kvevents.events import (
    AllBlocksCleared,
    Batch,
    BlockRemoved,
    BlockStored,
    PayloadError,
    decode_batch,
)
from kvevents.frame import Frame, FrameError, parse_frame
from kvevents.groups import EngineSettings
from kvevents.ingest import Ingest, IngestPolicy
from kvevents.intake import Intake
from kvevents.lobby import Custody
from kvevents.playback import PlaybackError, play
from kvevents.recording import RecordedFrame, RecordingError, format_frame, read_recording
from kvevents.report import Report
from kvevents.source import ExtraStrings, Source, Speaker, UnknownSpeakerError
from kvevents.stream import Standing, WorkerStream
from kvevents.subscriber import SubscribeError, Subscriber
from kvevents.trust import State

__all__ = [
    "AllBlocksCleared",
    "Applier",
    "Batch",
    "BlockRemoved",
    "BlockStored",
    "Custody",
    "EngineSettings",
    "ExtraStrings",
    "Frame",
    "FrameError",
    "Ingest",
    "IngestPolicy",
    "Intake",
    "PayloadError",
    "PlaybackError",
    "RecordedFrame",
    "RecordingError",
    "Report",
    "Source",
    "Speaker",
    "Standing",
    "State",
    "SubscribeError",
    "Subscriber",
    "Tally",
    "UnknownSpeakerError",
    "WorkerStream",
    "decode_batch",
    "format_frame",
    "parse_frame",
    "play",
    "read_recording",
]
