"""How far what is known of a worker can be trusted: the words that every package shares."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class TrustState(StrEnum):
    """From best to worst; `kvevents.trust.trust` says what leads to each."""

    EXACT = "exact"
    """Everything since a known empty start was applied."""
    PARTIAL = "partial"
    """What is claimed is true, but the worker may hold more."""
    DEGRADED = "degraded"
    """Something was lost: what is claimed may be gone."""
    RECOVERING = "recovering"
    """Something was lost, or may have been, and a replay is under way."""
    STALE = "stale"
    """Nothing vouches for the worker: no connection, no answer, or no sign of life."""
    UNKNOWN = "unknown"
    """Nothing was ever heard of the worker."""


class TrustStatus(NamedTuple):
    """How far what is claimed of one worker can be trusted."""

    state: TrustState
    reason: str
    """One of a few words; empty if the state is exact."""
    silent: float | None = None
    """Seconds since the worker's last sign of life; None if there never was one."""
    as_of: int | None = None
    """Number of the last frame applied; None before the first."""
