"""How far what is claimed of a worker can be trusted.

In path order:

    trust    the trust in one worker, and how changes move it from state to state
    changes  what can happen to it
"""

from __future__ import annotations

from kvevents.trust.changes import (
    BeginRecovery,
    Downgrade,
    EndRecovery,
    ExtrasNotSent,
    GpuCleared,
    HeardFromStart,
    JoinedLate,
    NeverHeard,
    OrphansChanged,
    Restarted,
    StartedEmpty,
    TrustChange,
)
from kvevents.trust.trust import ClassesInUse, Trust

__all__ = [
    "BeginRecovery",
    "ClassesInUse",
    "Downgrade",
    "EndRecovery",
    "ExtrasNotSent",
    "GpuCleared",
    "HeardFromStart",
    "JoinedLate",
    "NeverHeard",
    "OrphansChanged",
    "Restarted",
    "StartedEmpty",
    "Trust",
    "TrustChange",
]
