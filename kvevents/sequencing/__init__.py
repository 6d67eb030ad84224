"""Frames in order: which comes next, which are missing, and which engine they are of. Pure.

In path order:

    sequencer       the inputs: frames, connections, polls, answers; each returns actions
    transitions     what is known of the engine, its phase, and how that changes
    live_frames     what a live frame means
    replay_answers  what the answer to a replay request means
    frame_log       frames accepted, buffered or given up
    reorder_buffer  live frames that wait for earlier ones
    incarnation     one life of an engine process
    actions         what the sequencer is given and returns
"""

from __future__ import annotations

from kvevents.sequencing.actions import (
    Action,
    Apply,
    EngineRestarted,
    FrameCounts,
    ReceivedFrame,
    ReplayReason,
    ReplayRequest,
    StartOver,
)
from kvevents.sequencing.incarnation import Incarnation
from kvevents.sequencing.sequencer import FrameSequencer
from kvevents.sequencing.transitions import Phase

__all__ = [
    "Action",
    "Apply",
    "EngineRestarted",
    "FrameCounts",
    "FrameSequencer",
    "Incarnation",
    "Phase",
    "ReceivedFrame",
    "ReplayReason",
    "ReplayRequest",
    "StartOver",
]
