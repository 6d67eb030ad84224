"""Blocks that an engine announces under a group, but that lie in another cache than the group's."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from indexer import EngineHash

if TYPE_CHECKING:
    from indexer import Hashes, Place
    from kvevents.applying.orphans import Orphans
    from kvevents.wire import BlockRemoved

_MAX_HASHES = 10_000


class OtherCache:
    """Counts copies of such blocks, so that their removal is not taken for a contradiction."""

    def __init__(self) -> None:
        self._copies: dict[tuple[Place, int], int] = {}

    def __bool__(self) -> bool:
        return bool(self._copies)

    def add(self, place: Place, hashes: Hashes) -> None:
        """Add a copy of each hash; beyond the limit new ones are not remembered."""
        for engine_hash in hashes:
            name = (place, engine_hash)
            if len(self._copies) < _MAX_HASHES or name in self._copies:
                self._copies[name] = self._copies.get(name, 0) + 1

    def remove(self, place: Place, engine_hash: int) -> bool:
        """Remove a copy of a hash; False if there is none."""
        copies = self._copies.pop((place, engine_hash), 0)
        if copies > 1:
            self._copies[place, engine_hash] = copies - 1
        return bool(copies)

    def without_waiting(self, event: BlockRemoved, place: Place, orphans: Orphans) -> Hashes:
        """Remove an event's hashes from here and from `orphans`; returns those in neither."""
        hashes, counts = event.block_hashes, event.remaining_copy_counts
        if not orphans and not self:
            return hashes
        rest = array("Q")
        for index, engine_hash in enumerate(hashes):
            limit = None if counts is None else counts[index]
            if not (
                orphans.remove_copy(EngineHash(engine_hash), place, limit)
                or self.remove(place, engine_hash)
            ):
                rest.append(engine_hash)
        return rest

    def clear(self) -> None:
        """Remove all copies."""
        self._copies.clear()
