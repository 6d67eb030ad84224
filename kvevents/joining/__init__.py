"""Which workers join: admitted off the wire, expected, or pending until their owner is known.

In path order:

    admission  which workers may join
    pending    frames of workers whose owner is not known yet
    expected   workers that are expected before any frame of theirs has come
"""

from __future__ import annotations

from kvevents.joining.admission import Admission, FleetLimits
from kvevents.joining.expected import ExpectedWorkers
from kvevents.joining.pending import (
    Owner,
    Ownership,
    OwnsEverything,
    PendingFrame,
    PendingFrames,
)

__all__ = [
    "Admission",
    "ExpectedWorkers",
    "FleetLimits",
    "Owner",
    "Ownership",
    "OwnsEverything",
    "PendingFrame",
    "PendingFrames",
]
