"""TODO map."""

from __future__ import annotations

from kvevents.sequencing.actions import (
    Action,
    Apply,
    Rebuild,
    ReceivedFrame,
    ReplayReason,
    ReplayRequest,
    Restart,
)
from kvevents.sequencing.incarnation import Incarnation
from kvevents.sequencing.sequencer import FrameSequencer

__all__ = [
    "Action",
    "Apply",
    "FrameSequencer",
    "Incarnation",
    "Rebuild",
    "ReceivedFrame",
    "ReplayReason",
    "ReplayRequest",
    "Restart",
]
