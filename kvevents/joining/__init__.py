"""Which workers join: those that are admitted off the wire, and those that are expected.

In path order:

    admission  which workers may join
    continuity  whether a stream that was applied elsewhere goes on without a gap
    expected   workers that are expected before any frame of theirs has come
"""

from __future__ import annotations

from kvevents.joining.admission import Admission
from kvevents.joining.continuity import frames_after, goes_on
from kvevents.joining.expected import ExpectedWorkers

__all__ = [
    "Admission",
    "ExpectedWorkers",
    "frames_after",
    "goes_on",
]
