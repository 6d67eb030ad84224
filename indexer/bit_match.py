"""The prefix walk over the bitmaps of a store: one for each block, a bit for each holder."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from indexer.kernel import PrefixWalk, WorkerPlans
from indexer.memory import KeySize, MemoryPrefixMatch, TierRegistry, Walk, WalkedWorker

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from indexer.cache_layout import CacheLayout
    from indexer.index import PromptBlocks
    from indexer.types import Place, Worker


class BitColumnWorker(NamedTuple):
    """A worker whose holders are bits of bitmaps."""

    worker: Worker
    layout: CacheLayout
    bits: Mapping[int, Place]
    """Bit -> the place that it stands for."""


class BitColumns:
    """What the bits of one model's bitmaps stand for. Bits take the part of holders in the walk."""

    def __init__(
        self, workers: Iterable[BitColumnWorker], tier_weights: Mapping[str, float]
    ) -> None:
        """Take all workers that serve the model, in the order in which to answer."""
        self.pods: dict[str, list[WalkedWorker]] = {}
        """The ranks of each pod."""
        self._tiers = TierRegistry(tier_weights)
        self._chunks: dict[int, set[int]] = {}  # key_block_size -> lengths of chunks
        self._plans = WorkerPlans()
        self._walk = PrefixWalk(self._plans)
        self._worker_count = 0
        self._bit_count = 0
        for worker in workers:
            self._add(*worker)

    def _add(self, worker: Worker, layout: CacheLayout, bits: Mapping[int, Place]) -> None:
        walked = WalkedWorker(worker, self._worker_count, layout)
        self._worker_count += 1
        self.pods.setdefault(worker.pod, []).append(walked)
        self._chunks.setdefault(walked.key_block_size, set()).update(walked.chunks)
        self._plans.describe(walked.number, walked.plan, bool(walked.chunks))
        for bit, place in bits.items():
            self._plans.place(
                bit,
                walked.number,
                self._tiers.number_of(place.tier),
                walked.plan.bits.get(place.group, 0),
                layout.offload_chunk(place.tier, walked.key_block_size or 1),
            )
            self._bit_count = max(self._bit_count, bit + 1)

    @property
    def key_sizes(self) -> Collection[int]:
        """Tokens of the keys that workers have; 0 for keys as long as a prompt's blocks."""
        return self._chunks

    def match(
        self, prompt: PromptBlocks, bitmaps: Mapping[int, Sequence[bytes]]
    ) -> MemoryPrefixMatch:
        """Return how much of the prompt each worker holds.

        bitmaps: for each of `key_sizes` the bitmaps of the prompt's blocks, in order; empty for a
            block that nobody holds.
        """
        walks = {}
        weights = self._tiers.weights_with(prompt.tier_weights)
        for key_block_size, lengths in self._chunks.items():
            size = key_block_size or prompt.block_size
            _, chunks, gap = KeySize.of_workers(key_block_size, lengths)
            numbers, sets = self._intern(bitmaps[key_block_size], gap)
            ratio = prompt.block_size // size or 1
            walked = self._walk.walk(
                numbers,
                sets,
                weights,
                self._worker_count,
                prompt.tokens // size,
                (prompt.tokens - 1) // size,
                chunks,
                ratio,
            )
            walks[key_block_size] = Walk(*walked, size, ratio)
        return MemoryPrefixMatch(self.pods, self._tiers.names, walks)

    def _intern(self, bitmaps: Sequence[bytes], gap: int) -> tuple[array[int], list[array[int]]]:
        """Return the number of each block's set of bits, and the sets, as the walk wants them.

        Equal bitmaps get equal numbers. It ends after `gap` blocks in a row that nobody holds.
        """
        sets: list[array[int]] = []
        numbers_by_bitmap: dict[bytes, int] = {}
        numbers = array("I")
        missing = 0
        for bitmap in bitmaps:
            number = numbers_by_bitmap.get(bitmap)
            if number is None:
                number = numbers_by_bitmap[bitmap] = len(sets)
                sets.append(self._bits_of(bitmap))
            numbers.append(number)
            missing = 0 if bitmap else missing + 1
            if missing == gap:
                break
        return numbers, sets

    def _bits_of(self, bitmap: bytes) -> array[int]:
        bits = np.flatnonzero(np.unpackbits(np.frombuffer(bitmap, dtype=np.uint8)))
        # The store may have allocated bits since its registry was read: leave those out.
        known = bits[bits < self._bit_count]
        return array("I", known.astype(np.uint32).tobytes())
