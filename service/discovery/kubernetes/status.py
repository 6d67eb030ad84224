"""How recent the copy of a cluster's pods is, and what went wrong: for metrics and people."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

import structlog

_MAX_DETAIL = 300  # characters
_log = structlog.get_logger("kvatlas.discovery")


class Skipped:
    """Counts what is left out, and logs the first of each reason.

    Attributes:
        counts: by reason: `unreadable` objects and endpoints, a `port` that an object does not
            name, objects beyond the `limit`, an `event` of an unknown type.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, reason: str, name: str, detail: str) -> None:
        """Count one more, such as an object of this name."""
        if not self.counts[reason]:
            detail = detail[:_MAX_DETAIL]
            _log.warning("kubernetes_skips", reason=reason, name=name[:_MAX_DETAIL], detail=detail)
        self.counts[reason] += 1


@dataclass(slots=True)
class CollectionStatus:
    """Of one namespace, or of all together."""

    is_listed: bool = False
    """Whether it is known which pods there are, or were."""
    is_watched: bool = False
    """Whether a watch is open, so that changes are known at once."""
    heard_at: float | None = None
    """When the API server last said something of it, on the monotonic clock."""

    def on_word(self) -> None:
        """The API server has said something that is up to date."""
        self.heard_at = time.monotonic()


@dataclass(slots=True)
class KubernetesStatus:
    """Of all that is watched. Counters only grow."""

    collections: dict[str, CollectionStatus] = field(default_factory=dict)
    """By namespace."""
    pods: int = 0
    """That were told of last."""
    lists: int = 0
    """Lists that were completed."""
    relists: int = 0
    """Those of them that a watch could not do without: all but the first of each namespace."""
    last_list_at: float | None = None
    """When a list was completed, in seconds since 1970."""
    events: Counter[str] = field(default_factory=Counter)
    """Of watches, by type: ADDED, MODIFIED, DELETED, BOOKMARK, ERROR."""
    failures: Counter[str] = field(default_factory=Counter)
    """Lists and watches that failed, by reason."""
    skipped: Skipped = field(default_factory=Skipped)
    """What was left out, by reason."""

    @property
    def is_watched(self) -> bool:
        """Whether a change would be known at once, wherever it happens."""
        return bool(self.collections) and all(c.is_watched for c in self.collections.values())

    def age_seconds(self) -> float | None:
        """How long ago the pods were known at the latest, where they are known least; None: never.

        A quiet cluster sends a bookmark about every minute, so more than that means trouble.
        """
        heard = [collection.heard_at for collection in self.collections.values()]
        known = [at for at in heard if at is not None]
        if not heard or len(known) < len(heard):
            return None
        return time.monotonic() - min(known)
