"""The longest-prefix walk over bits: for each block a string with one bit for each slot."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from indexer.kernel import PrefixWalk
from indexer.match import KeySize, MemoryPrefixMatch, Walk, WorkerEntry
from indexer.memory import UNKNOWN_TIER_WEIGHT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from indexer.cache_layout import CacheLayout
    from indexer.index import PromptBlocks
    from indexer.types import Place, Worker


class BitColumnWorker(NamedTuple):
    """A worker whose blocks are bits. slots: slot -> place."""

    worker: Worker
    layout: CacheLayout
    slots: Mapping[int, Place]


class BitColumns:
    """What the slots of one model's bits stand for.

    workers: all that serve the model, in the order of answers. key_sizes: tokens of the keys that
    workers have; 0 for a prompt's own.
    """

    def __init__(
        self, workers: Iterable[BitColumnWorker], tier_weights: Mapping[str, float]
    ) -> None:
        self._tiers = list(tier_weights)
        self._weights = array("d", tier_weights.values())
        self.pods: dict[str, list[WorkerEntry]] = {}
        self._chunks: dict[int, set[int]] = {}
        self._walk = PrefixWalk()
        self._slot_count = 0
        self._count = 0
        for each in workers:
            self._add(*each)

    def _add(self, worker: Worker, layout: CacheLayout, slots: Mapping[int, Place]) -> None:
        size = layout.key_block_size
        plan = layout.plan(size or 1)
        entry = WorkerEntry(worker, "", self._count, 0, 0, size, plan, layout)
        self.pods.setdefault(worker.pod, []).append(entry)
        self._chunks.setdefault(size, set()).update(entry.chunks)
        self._walk.describe(self._count, plan, bool(entry.chunks))
        self._count += 1
        for slot, place in slots.items():
            if place.tier not in self._tiers:
                self._tiers.append(place.tier)
                self._weights.append(UNKNOWN_TIER_WEIGHT)
            self._walk.place(
                slot,
                entry.number,
                self._tiers.index(place.tier),
                plan.bits.get(place.group, 0),
                layout.offload_chunk(place.tier, size or 1),
            )
            self._slot_count = max(self._slot_count, slot + 1)

    @property
    def key_sizes(self) -> Collection[int]:
        """See the class."""
        return self._chunks

    def match(self, prompt: PromptBlocks, bits: Mapping[int, Sequence[bytes]]) -> MemoryPrefixMatch:
        """How much each worker holds of a prompt.

        bits: for each of `key_sizes` those of the prompt's blocks, in order.
        """
        walks = {}
        for key_block_size, lengths in self._chunks.items():
            size = key_block_size or prompt.block_size
            _, chunks, gap = KeySize.of(key_block_size, lengths)
            numbers, sets = self._sets(bits[key_block_size], gap)
            ratio = prompt.block_size // size or 1
            walked = self._walk.walk(
                numbers,
                sets,
                self._weights,
                self._count,
                prompt.tokens // size,
                (prompt.tokens - 1) // size,
                chunks,
                ratio,
            )
            walks[key_block_size] = Walk(*walked, size, ratio)
        return MemoryPrefixMatch(self.pods, self._tiers, walks)

    def _sets(self, bits: Sequence[bytes], gap: int) -> tuple[array[int], list[array[int]]]:
        """Numbers of holder sets along a prompt, up to `gap` blocks in a row that nobody holds."""
        sets: list[array[int]] = []
        numbers_by_bits: dict[bytes, int] = {}
        numbers = array("I")
        missing = 0
        for of_block in bits:
            number = numbers_by_bits.get(of_block)
            if number is None:
                number = numbers_by_bits[of_block] = len(sets)
                sets.append(self._members(of_block))
            numbers.append(number)
            missing = 0 if of_block else missing + 1
            if missing == gap:
                break
        return numbers, sets

    def _members(self, bits: bytes) -> array[int]:
        slots = np.flatnonzero(np.unpackbits(np.frombuffer(bits, dtype=np.uint8)))
        known = slots[slots < self._slot_count]  # one just allotted is not told of yet
        return array("I", known.astype(np.uint32).tobytes())
