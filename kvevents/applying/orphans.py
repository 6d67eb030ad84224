"""Blocks that wait: for their parent's meaning, or for their own.

A pod that was joined late stores blocks after ones that were announced before, and offload tiers
announce bare hashes. Both may be understood later, when the missing block is announced (again, or
by a replay). Until then it is remembered which copies of which hashes the engine has.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from indexer import EngineHash

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from indexer import Place
    from kvevents.budget import Budget
    from kvevents.wire import BlockStored

_EVENT_BYTES = 600
_HASH_BYTES = 250  # of one hash with its copies


class Adopted(NamedTuple):
    """Copies of a block that has become known."""

    engine_hash: EngineHash
    place: Place
    copies: int


@dataclass(eq=False, slots=True)
class _Waiting:
    """An event whose parent is not known."""

    parent: EngineHash
    event: BlockStored
    size: int


class Orphans:
    """What one worker has announced that is not understood yet, within a shared budget.

    blocks: how many hashes wait.
    """

    def __init__(self, budget: Budget, *, count_copies: bool) -> None:
        self._budget = budget
        self._count_copies = count_copies
        self._waiting: dict[_Waiting, None] = {}
        self._children: dict[EngineHash, list[_Waiting]] = {}
        self._copies: dict[EngineHash, Counter[Place]] = {}

    @property
    def blocks(self) -> int:
        """How many blocks wait."""
        return len(self._copies)

    def __bool__(self) -> bool:
        return bool(self._copies)

    def __contains__(self, engine_hash: EngineHash) -> bool:
        return engine_hash in self._copies

    def add_event(self, event: BlockStored, parent: EngineHash, place: Place) -> tuple[int, int]:
        """Keep an event until its parent is known.

        Returns how many blocks were dropped to make room, and how many of the event's were not
        kept for lack of it.
        """
        size = _EVENT_BYTES + 8 * (len(event.token_ids) + len(event.block_hashes))
        dropped = 0
        while not self._budget.reserve(size):
            if not self._waiting:
                return dropped, len(event.block_hashes)
            dropped += self._drop(next(iter(self._waiting)))
        waiting = _Waiting(parent, event, size)
        self._waiting[waiting] = None
        self._children.setdefault(parent, []).append(waiting)
        kept = sum(self.add_copy(EngineHash(name), place) for name in event.block_hashes)
        return dropped, len(event.block_hashes) - kept

    def add_copy(self, engine_hash: EngineHash, place: Place) -> bool:
        """One more copy of a block whose meaning is not known; False if there is no room."""
        copies = self._copies.get(engine_hash)
        if copies is None:
            if not self._budget.reserve(_HASH_BYTES):
                return False
            copies = self._copies[engine_hash] = Counter()
        copies[place] = copies[place] + 1 if self._count_copies else 1
        return True

    def remove_copy(self, engine_hash: EngineHash, place: Place, most: int | None = None) -> bool:
        """One copy less, and at most so many remain; False if none waits there."""
        copies = self._copies.get(engine_hash)
        if copies is None or place not in copies:
            return False
        copies[place] -= 1
        if most is not None:
            copies[place] = min(copies[place], most)
        if not copies[place]:
            del copies[place]
        if not copies:
            self._forget(engine_hash)
        return True

    def clear(self, tiers: Collection[str] | None = None) -> None:
        """The worker's blocks in `tiers` (None: all) are gone."""
        for engine_hash, copies in list(self._copies.items()):
            for place in [place for place in copies if tiers is None or place.tier in tiers]:
                del copies[place]
            if not copies:
                self._forget(engine_hash)

    def pop_children(self, hashes: Iterable[int]) -> list[BlockStored]:
        """The events that waited for one of `hashes`, which are known by now."""
        found = []
        for parent in map(EngineHash, hashes):
            for waiting in self._children.pop(parent, ()):
                del self._waiting[waiting]
                self._budget.release(waiting.size)
                found.append(waiting.event)
        return found

    def pop_copies(self, hashes: Iterable[int]) -> list[Adopted]:
        """The copies of those of `hashes` that waited, which are known by now."""
        found = []
        for engine_hash in map(EngineHash, hashes):
            copies = self._copies.get(engine_hash)
            if copies is not None:
                found += [Adopted(engine_hash, place, count) for place, count in copies.items()]
                self._forget(engine_hash)
        return found

    def _forget(self, engine_hash: EngineHash) -> None:
        del self._copies[engine_hash]
        self._budget.release(_HASH_BYTES)
        if not self._copies:  # nothing that waits is held any more
            for waiting in list(self._waiting):
                self._drop(waiting)

    def _drop(self, waiting: _Waiting) -> int:
        """Wait no longer; returns how many held blocks will now never be understood."""
        del self._waiting[waiting]
        self._budget.release(waiting.size)
        siblings = self._children[waiting.parent]
        siblings.remove(waiting)
        if not siblings:
            del self._children[waiting.parent]
        lost = [h for h in map(EngineHash, waiting.event.block_hashes) if h in self._copies]
        for engine_hash in lost:
            del self._copies[engine_hash]
            self._budget.release(_HASH_BYTES)
        return len(lost)
