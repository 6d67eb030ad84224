"""The last events of a worker that touched a block."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

    from indexer import Inspection, Worker
    from kvevents import RecentEvent, WorkerStream

_MOST_TOUCHES = 8
CLEARED = "AllBlocksCleared"


class Touch(NamedTuple):
    """An event that touched a block."""

    worker: Worker
    type: str
    tier: str
    group: int
    sequence: int
    age: float
    """Seconds since it was applied."""
    engine_hash: int | None
    """By which it names the block; None for one that clears all."""
    hashes: int
    """How many it names."""


class Touches(NamedTuple):
    """The last events that touched a block, newest first, and how many were searched."""

    events: list[Touch]
    searched: int


class RecentTouches:
    """The last events of one worker, to be searched for blocks."""

    def __init__(self, stream: WorkerStream, inspection: Inspection, now: float) -> None:
        self._worker = stream.worker
        self._now = now
        self._events = list(stream.recent.newest_first())
        names = array("Q", dict.fromkeys(name for each in self._events for name in each.hashes))
        self._names: dict[int, set[int]] = {}  # block key -> engine hashes that mean it
        for meaning in inspection.meanings(stream.worker, names):
            self._names.setdefault(meaning.key, set()).add(names[meaning.position])

    def of_keys(self, keys: Collection[int]) -> Touches:
        """Return the last events that named one of these blocks, and those that cleared all."""
        return self.of_hashes({name for key in keys for name in self._names.get(key, ())})

    def of_hashes(self, names: Collection[int]) -> Touches:
        """Return the last events that named one of these hashes, and those that cleared all."""
        found: list[Touch] = []
        for event in self._events:
            name = next((name for name in event.hashes if name in names), None)
            if (name is not None or event.type == CLEARED) and len(found) < _MOST_TOUCHES:
                found.append(self._touch(event, name))
        return Touches(found, len(self._events))

    def _touch(self, event: RecentEvent, name: int | None) -> Touch:
        age = max(0.0, self._now - event.applied_at)
        place = event.tier, event.group
        return Touch(self._worker, event.type, *place, event.sequence, age, name, len(event.hashes))
