"""The last events of a worker that touched a block."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

    from indexer import Inspection, Worker
    from kvevents import RecentEvent, WorkerStream
    from service.explaining.asked import Turn

_MOST_TOUCHES = 8
_NAMES_AT_ONCE = 512
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

    def __init__(self, stream: WorkerStream, now: float) -> None:
        """Take the worker's stream, and the time (`time.monotonic`)."""
        self._worker = stream.worker
        self._now = now
        self._events = list(stream.recent.newest_first())
        self._names: dict[int, list[int]] = {}  # key of a block -> engine hashes that mean it

    async def resolve(self, inspection: Inspection, keys: Collection[int], turn: Turn) -> None:
        """Find out which of the events' engine hashes mean the blocks that are looked for."""
        names = array("Q", dict.fromkeys(name for each in self._events for name in each.hashes))
        for start in range(0, len(names) if keys else 0, _NAMES_AT_ONCE):
            some = names[start : start + _NAMES_AT_ONCE]
            for key, found in inspection.names_of(self._worker, some, keys).items():
                self._names.setdefault(key, []).extend(found)
            await turn.pause()

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
