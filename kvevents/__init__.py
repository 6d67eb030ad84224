"""ZMQ frames -> events -> index writes.

In path order: `subscriber` bytes arrive, `frame` parts -> frame, `source` who speaks, `events`
payload -> typed events over `reader` (compiled), `extra_keys` what an event says besides tokens,
`applier` event -> index write; `ingest` ties them together. `simulated` is a pod to try it with.
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
from kvevents.ingest import Ingest, WorkerStream
from kvevents.source import ExtraStrings, Source, Speaker, UnknownSpeakerError
from kvevents.subscriber import SubscribeError, Subscriber

__all__ = [
    "AllBlocksCleared",
    "Applier",
    "Batch",
    "BlockRemoved",
    "BlockStored",
    "ExtraStrings",
    "Frame",
    "FrameError",
    "Ingest",
    "PayloadError",
    "Source",
    "Speaker",
    "SubscribeError",
    "Subscriber",
    "Tally",
    "UnknownSpeakerError",
    "WorkerStream",
    "decode_batch",
    "parse_frame",
]
