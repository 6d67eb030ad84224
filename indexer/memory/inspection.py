"""A close look at an index, for those who ask why: who holds a block, what a hash means to whom.

Each question costs more than a match, and none is asked on the path of a score or an event.
"""

from __future__ import annotations

from array import array
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from indexer.scheme import model_scope
from indexer.types import BlockKey, Place, Worker, WorkerBlocks

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from indexer.memory.memory_index import MemoryIndex
    from indexer.types import Hashes

_LOW_16_BITS = 0xFFFF


class Holding(NamedTuple):
    """One place where a block is held."""

    worker: Worker
    place: Place


class HashMeaning(NamedTuple):
    """What an engine hash means to one worker, and where it holds that under the hash."""

    position: int
    """Of the hash among those that were asked about."""
    key: BlockKey
    """Of the last block that the hash stands for."""
    blocks: int
    """How many blocks it stands for."""
    place: Place | None
    """Where they are held; None for a hash that was announced, whether it is held or not."""
    copies: int
    """How many copies there are; 0 without a place."""


class Inspection:
    """Looks into a `MemoryIndex`. It changes nothing but the age of blocks."""

    def __init__(self, index: MemoryIndex) -> None:
        self._index = index

    def holdings(self, model: str, keys: array[int]) -> list[frozenset[Holding]]:
        """Return who holds each of the blocks; blocks with the same holders get the same set.

        Cost: O(keys), and O(workers of the model).
        """
        table = self._index.table
        numbers = table.lookup.sets_of(keys, model_scope(model), len(keys) + 1)
        owners = self._owners(model)
        sets: dict[int, frozenset[Holding]] = {0: frozenset()}
        for number in numbers:
            if number not in sets:
                found = (owners.get(holder) for holder in table.sets.holders[number])
                sets[number] = frozenset(holding for holding in found if holding is not None)
        known = [sets[number] for number in numbers]
        return known + [sets[0]] * (len(keys) - len(known))

    def is_held(self, model: str, key: int) -> bool:
        """Whether anybody may hold a block. Cost: O(1)."""
        return bool(self._index.table.lookup.sets_of(array("Q", [key]), model_scope(model)))

    def key_sizes(self, model: str) -> frozenset[int]:
        """Return the tokens of the keys that the model's workers have; 0: as in a prompt."""
        entries = self._index.entries.values()
        return frozenset(entry.key_block_size for entry in entries if entry.model == model)

    def blocks_of(self, worker: Worker) -> WorkerBlocks | None:
        """Return what is held of a worker, with blocks of all groups; None for an unknown one."""
        entry = self._index.entries.get(worker)
        if entry is None:
            return None
        by_tier: dict[str, int] = {}
        for place, holder in entry.holders.items():
            if place.group >= 0:
                held = self._index.table.held_by(holder)
                by_tier[place.tier] = by_tier.get(place.tier, 0) + held
        return WorkerBlocks(worker, entry.model, by_tier, entry.layout)

    def _owners(self, model: str) -> dict[int, Holding]:
        """Return whose each holder is; of groups that exist, and not of announcers."""
        return {
            holder: Holding(entry.worker, place)
            for entry in self._index.entries.values()
            if entry.model == model
            for place, holder in entry.holders.items()
            if place.group >= 0
        }

    def names_of(
        self, worker: Worker, hashes: Hashes, keys: Collection[int]
    ) -> dict[int, list[int]]:
        """Return which of the engine hashes mean each of the blocks to a worker.

        Cost: O(hashes), a fraction of what `meanings` takes.
        """
        entry = self._index.entries.get(worker)
        if entry is None or not keys:
            return {}
        announcer = array("I", [entry.announcer])
        counts, rows = self._index.table.rows_of(hashes, announcer, announcer)
        means = np.frombuffer(rows, np.uint64)[::2]
        positions = np.repeat(np.arange(len(hashes)), np.frombuffer(counts, np.uint16))
        wanted = np.isin(means, np.fromiter(keys, np.uint64, len(keys)))
        names: dict[int, list[int]] = {}
        for key, position in zip(means[wanted].tolist(), positions[wanted].tolist(), strict=True):
            names.setdefault(key, []).append(hashes[position])
        return names

    def meanings(self, worker: Worker, hashes: Hashes) -> Sequence[HashMeaning]:
        """Return what engine hashes mean to a worker. Cost: O(hashes)."""
        entry = self._index.entries.get(worker)
        if entry is None:
            return ()
        places = [place for place in entry.holders if place.group >= 0]
        holders = array("I", [entry.announcer, *(entry.holders[place] for place in places)])
        counts, rows = self._index.table.rows_of(hashes, holders, array("I", range(len(holders))))
        found: list[HashMeaning] = []
        pairs = zip(rows[::2], rows[1::2], strict=True)
        for position, count in enumerate(counts):
            for key, word in islice(pairs, count):
                number, copies, blocks = word >> 32, word >> 16 & _LOW_16_BITS, word & _LOW_16_BITS
                place = places[number - 1] if number else None
                held = 0 if place is None else copies
                found.append(HashMeaning(position, BlockKey(key), blocks, place, held))
        return found
