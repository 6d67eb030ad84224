"""The state of a rank, and what can happen to it."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from indexer import TrustStatus, Worker


class Change(Enum):
    """What has happened to a rank; the names are those of `PodChange` in fleet.proto."""

    LISTED = "listed"
    LIST_COMPLETE = "list_complete"
    APPEARED = "appeared"
    TRUST_CHANGED = "trust_changed"
    RESTARTED = "restarted"
    OWNER_CHANGED = "owner_changed"
    DISAPPEARED = "disappeared"


class RankState(NamedTuple):
    """The state of a rank at one moment."""

    worker: Worker
    model: str
    status: TrustStatus
    restarts: int
    owner: str
    """The replica that applies its events; empty if it is this one."""


class RankChange(NamedTuple):
    """A change, and the state after it."""

    change: Change
    state: RankState | None
    """None for LIST_COMPLETE; of a rank that has disappeared the last one."""
    at: float
    """When it was noticed, in seconds since 1970."""
    skipped: int = 0
    """Changes of the rank before this one that were left out."""


def change_between(before: RankState, after: RankState) -> Change | None:
    """Return what has happened, the most important of several things; None if nothing has."""
    if after.restarts > before.restarts:
        return Change.RESTARTED
    if after.owner != before.owner:
        return Change.OWNER_CHANGED
    if after.status[:2] != before.status[:2]:
        return Change.TRUST_CHANGED
    return None
