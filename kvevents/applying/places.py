"""Where the blocks of an event lie: storage medium and group as the event names them -> place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from indexer import Place
from kvevents.wire import CPU_TIER, GPU_TIER, class_of, is_known, tier_of

if TYPE_CHECKING:
    from kvevents.trust import Trust

_MAX_PLACES = 63  # the holders of a block at one worker are written to the store as 64 bits
_MAX_REMEMBERED = 256  # names of media come off the wire


class Places:
    """The places of one worker.

    A class of tiers counts for all workers of the model once a place is in it. A tier that no
    engine is known to have is the worker's own matter.

    Args:
        trust: told of the classes that count.
    """

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._places: dict[tuple[str | None, int | None], Place] = {}

    def find(self, medium: str | None, group: int | None) -> Place | None:
        """The place of blocks with this medium and group; None if the worker has too many."""
        place = self._places.get((medium, group))
        if place is None:
            place = Place(tier_of(medium), group or 0)
            known = set(self._places.values())
            if place.group < 0 or (place not in known and len(known) >= _MAX_PLACES):
                return None
            if is_known(place.tier):
                self._trust.classes.add(class_of(place.tier))
            else:
                self._trust.use_class(class_of(place.tier))
            if len(self._places) < _MAX_REMEMBERED:
                self._places[medium, group] = place
        return place

    @property
    def named_tiers(self) -> set[str]:
        """The tiers that the worker's events have named."""
        return {place.tier for place in self._places.values()}

    @property
    def tiers(self) -> list[str]:
        """The tiers that may hold blocks of the worker."""
        return list(self.named_tiers | {GPU_TIER, CPU_TIER})
