"""The longest-prefix walk over bits: for each block a string with one bit for each slot."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np

from indexer.match import Cache, MemoryPrefixMatch
from indexer.memory import UNKNOWN_TIER_WEIGHT
from indexer.prefix import walk_prefix

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from indexer.types import Worker


class Slots:
    """What the slots of one model's bits stand for.

    workers: all that serve the model, in the order of answers. tiers: worker -> slot -> tier.
    """

    def __init__(
        self, workers: Iterable[tuple[Worker, Mapping[int, str]]], tier_weights: Mapping[str, float]
    ) -> None:
        self._tiers = list(tier_weights)
        self._weights = array("d", tier_weights.values())
        self.pods: dict[str, list[Cache]] = {}
        self._slots = array("I")
        self._slot_workers = array("i")
        self._slot_tiers = array("B")
        self._count = 0
        for worker, tiers in workers:
            self._add(worker, tiers)

    def _add(self, worker: Worker, tiers: Mapping[int, str]) -> None:
        cache = Cache(worker, "", self._count, 0, 0)
        self.pods.setdefault(worker.pod, []).append(cache)
        self._count += 1
        for slot, tier in tiers.items():
            if tier not in self._tiers:
                self._tiers.append(tier)
                self._weights.append(UNKNOWN_TIER_WEIGHT)
            while len(self._slot_workers) <= slot:
                self._slot_workers.append(-1)
                self._slot_tiers.append(0)
            self._slot_workers[slot] = cache.number
            self._slot_tiers[slot] = self._tiers.index(tier)

    def match(self, bits: Sequence[bytes]) -> MemoryPrefixMatch:
        """How much each worker holds of a prompt whose blocks have these bits, in order."""
        sets: list[array[int]] = []
        numbers_by_bits: dict[bytes, int] = {}
        numbers = array("I")
        for of_block in bits:
            number = numbers_by_bits.get(of_block)
            if number is None:
                number = numbers_by_bits[of_block] = len(sets)
                sets.append(self._members(of_block))
            numbers.append(number)
            if not of_block:
                break  # held by nobody, and so is all that follows
        walked = walk_prefix(
            numbers, sets, self._slot_workers, self._slot_tiers, self._weights, self._count
        )
        return MemoryPrefixMatch(self.pods, self._tiers, walked)

    def _members(self, bits: bytes) -> array[int]:
        slots = np.flatnonzero(np.unpackbits(np.frombuffer(bits, dtype=np.uint8)))
        known = slots[slots < len(self._slot_workers)]  # one just allotted is not told of yet
        return array("I", known.astype(np.uint32).tobytes())
