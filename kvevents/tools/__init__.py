"""Tools around events.

In path order:

    recording  frames to a file and back
    playback   recorded frames, published again
    simulated  a pod to try it with
"""

from __future__ import annotations

from kvevents.tools.playback import PlaybackError, play
from kvevents.tools.recording import (
    RecordedFrame,
    Recorders,
    RecordingError,
    TooManyRecordersError,
    format_frame,
    read_recording,
)
from kvevents.tools.simulated import SimulatedPod

__all__ = [
    "PlaybackError",
    "RecordedFrame",
    "Recorders",
    "RecordingError",
    "SimulatedPod",
    "TooManyRecordersError",
    "format_frame",
    "play",
    "read_recording",
]
