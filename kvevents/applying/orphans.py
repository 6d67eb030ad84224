"""Blocks that wait for their parent's meaning, or for their own.

A pod that is joined late announces blocks after others that it announced before, and offload tiers
announce bare hashes. Both can be understood later, when the missing block is announced, again or
by a replay. Until then the copies of each hash are counted here.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from indexer import EngineHash

if TYPE_CHECKING:
    from array import array
    from collections.abc import Collection, Iterable, Iterator

    from indexer import Place
    from kvevents.budget import Budget
    from kvevents.wire import BlockStored

_EVENT_BYTES = 600
_COPIES_BYTES = 250  # of the copies of one hash in one place
_MOST_COPIES = 1024  # of a block in a place; no engine has so many: the rest is counted as skipped
_MOST_SEARCHED = 256  # events


class Adopted(NamedTuple):
    """Copies of a block whose meaning has become known."""

    engine_hash: EngineHash
    place: Place
    copies: int


@dataclass(eq=False, slots=True)
class _Waiting:
    """An event that waits for its parent."""

    parent: EngineHash
    event: BlockStored
    size: int


class Orphans:
    """What one worker has announced and is not understood yet.

    Args:
        budget: memory for everything that waits, shared with other workers.
        count_copies: whether a block announced again has one more copy; see `Index`.
    """

    def __init__(self, budget: Budget, *, count_copies: bool) -> None:
        self._budget = budget
        self._count_copies = count_copies
        # In an OrderedDict the oldest is found at once, however many were removed before it.
        self._waiting: OrderedDict[_Waiting, None] = OrderedDict()
        self._children: dict[EngineHash, dict[_Waiting, None]] = {}
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
        """Keep an event until its parent is known, dropping the oldest ones if there is no room.

        Returns how many blocks of other events were dropped, and how many of this event's were not
        kept.
        """
        arrays = 8 * (len(event.token_ids) + len(event.block_hashes))
        size = _EVENT_BYTES + max(event.size, arrays)
        dropped = 0
        while not self._budget.reserve(size):
            if not self._waiting:
                return dropped, len(event.block_hashes)
            dropped += self._drop(next(iter(self._waiting)))
        waiting = _Waiting(parent, event, size)
        self._waiting[waiting] = None
        self._children.setdefault(parent, {})[waiting] = None
        kept = sum(self.add_copy(EngineHash(name), place) for name in event.block_hashes)
        return dropped, len(event.block_hashes) - kept

    def add_copy(self, engine_hash: EngineHash, place: Place) -> bool:
        """Count a copy of a block without a known meaning; False if there is no room for it."""
        copies = self._copies.get(engine_hash)
        if copies is None or place not in copies:
            if not self._budget.reserve(_COPIES_BYTES):
                return False
            copies = self._copies.setdefault(engine_hash, Counter())
        if copies[place] >= _MOST_COPIES:
            return False
        copies[place] = copies[place] + 1 if self._count_copies else 1
        return True

    def remove_copy(self, engine_hash: EngineHash, place: Place, limit: int | None = None) -> bool:
        """Remove a copy, and all beyond `limit`; False if no copy waits in `place`."""
        copies = self._copies.get(engine_hash)
        if copies is None or place not in copies:
            return False
        copies[place] -= 1
        if limit is not None:
            copies[place] = min(copies[place], limit)
        if not copies[place]:
            self._forget_place(engine_hash, place)
        return True

    def has_block(self, tokens: array[int]) -> bool:
        """Whether one of the events that have waited longest stores a block of these tokens."""
        size = len(tokens)
        for waiting in islice(self._waiting, _MOST_SEARCHED):
            ids = waiting.event.token_ids
            for start in range(0, len(ids) - size + 1, size):
                if ids[start] == tokens[0] and ids[start : start + size] == tokens:
                    return True
        return False

    def clear(self, tiers: Collection[str] | None = None) -> None:
        """Remove the copies in `tiers`, or all copies."""
        for engine_hash, copies in list(self._copies.items()):
            for place in [place for place in copies if tiers is None or place.tier in tiers]:
                self._forget_place(engine_hash, place)

    def pop_children(self, hashes: Iterable[int]) -> Iterator[BlockStored]:
        """Remove and yield the events that wait for one of `hashes`, one by one."""
        for parent in map(EngineHash, hashes):
            while (siblings := self._children.get(parent)) is not None:
                waiting = next(iter(siblings))
                self._forget_event(waiting)
                yield waiting.event

    def pop_copies(self, hashes: Iterable[int]) -> list[Adopted]:
        """Remove and return the copies of `hashes` that wait."""
        adopted = []
        for engine_hash in map(EngineHash, hashes):
            copies = self._copies.get(engine_hash)
            if copies is not None:
                adopted += [Adopted(engine_hash, place, count) for place, count in copies.items()]
                self._forget(engine_hash)
        return adopted

    def _forget_place(self, engine_hash: EngineHash, place: Place) -> None:
        copies = self._copies[engine_hash]
        if len(copies) == 1:
            self._forget(engine_hash)
        else:
            del copies[place]
            self._budget.release(_COPIES_BYTES)

    def _forget(self, engine_hash: EngineHash) -> None:
        self._budget.release(_COPIES_BYTES * len(self._copies.pop(engine_hash)))
        if not self._copies:  # no block of the waiting events is cached any more
            for waiting in list(self._waiting):
                self._drop(waiting)

    def _forget_event(self, waiting: _Waiting) -> None:
        del self._waiting[waiting]
        self._budget.release(waiting.size)
        siblings = self._children[waiting.parent]
        del siblings[waiting]
        if not siblings:
            del self._children[waiting.parent]

    def _drop(self, waiting: _Waiting) -> int:
        """Drop a waiting event; returns how many of its blocks are still cached."""
        self._forget_event(waiting)
        lost = [h for h in map(EngineHash, waiting.event.block_hashes) if h in self._copies]
        for engine_hash in lost:
            self._budget.release(_COPIES_BYTES * len(self._copies.pop(engine_hash)))
        return len(lost)
