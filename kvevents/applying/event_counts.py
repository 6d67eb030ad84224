"""What happened to a worker's events, counted by type and by reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class EventCounts:
    """Counters of one worker; nothing is dropped without being counted here."""

    events: Counter[str] = field(default_factory=Counter)
    """Events that were applied, by type."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Events and blocks that were not applied, by reason; blocks count one by one where only part
    of an event was applied."""
