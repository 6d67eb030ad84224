"""Trust in what the index claims of a worker: the words that all packages share."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class TrustState(StrEnum):
    """Trust in the index's claims about a worker, from best to worst.

    `kvevents.trust.trust` says what leads to each state.
    """

    EXACT = "exact"
    """All events since a known empty start were applied: the index claims what the worker holds."""
    PARTIAL = "partial"
    """All claims are true, but the worker may hold more."""
    DEGRADED = "degraded"
    """Events were lost: the worker may no longer hold what the index claims."""
    RECOVERING = "recovering"
    """Events were lost, or may have been, and a replay is under way."""
    STALE = "stale"
    """Nothing confirms the claims: no connection, no answer, or no sign of life."""
    UNKNOWN = "unknown"
    """The worker has never published anything."""


class TrustStatus(NamedTuple):
    """The trust in the index's claims about one worker, and the reason for it."""

    state: TrustState
    reason: str
    """One of a few words; empty if the state is exact."""
    silent: float | None = None
    """Seconds since the worker's last sign of life; None before the first."""
    as_of: int | None = None
    """The sequence number of the last frame applied or given up as lost; None before the first."""
