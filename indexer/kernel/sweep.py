# cython: warn.unreachable=False, boundscheck=False, wraparound=False, initializedcheck=False
"""The sweep: takes retired holders out of the holder sets of all slots, a few segments a call."""

from __future__ import annotations

import cython

from indexer.kernel.holder_sets import HolderSets
from indexer.kernel.holders import Holders
from indexer.kernel.segment import Segment


@cython.cclass
class Sweep:
    """A pass over both maps of a block table, again and again while there are retired holders.

    A holder retires in constant time: its number stays in sets, and nothing counts it any more.
    The number can stand for another holder only when no set contains it, so the sweep rewrites
    every set that does. Its cost does not depend on how many holders have retired.
    """

    def __init__(
        self,
        blocks: list[Segment],
        mappings: list[Segment],
        sets: HolderSets,
        holders: Holders,
    ) -> None:
        self._blocks = blocks
        self._mappings = mappings
        self._sets = sets
        self._holders = holders
        self._leaving = set()  # holders that had retired when the present pass began
        self._next = 0  # the segment with which the next call begins

    def run(self, segments: int) -> tuple[int, int]:
        """Sweep up to `segments` more segments of both maps; return how many slots each freed.

        Holders that retire during a pass are taken out of the segments still to come, but stay in
        those behind. So the pass frees only the numbers of holders that had retired before it.
        """
        freed_blocks = freed_mappings = 0
        if not self._sets.retired:
            return 0, 0
        if self._next == 0:
            self._leaving = set(self._sets.retired)
        for _ in range(min(segments, len(self._blocks) - self._next)):
            freed_blocks += self._sweep_segment(self._blocks[self._next])
            freed_mappings += self._sweep_segment(self._mappings[self._next])
            self._next += 1
        if self._next == len(self._blocks):
            self._next = 0
            self._sets.forget_retired(self._leaving)
            self._holders.free(self._leaving)
        return freed_blocks, freed_mappings

    def _sweep_segment(self, segment: Segment) -> int:
        """Rewrite the sets of one segment without retired holders; return how many slots it freed.

        Most slots share a few sets, so each set is worked out once. Nothing is inserted and no
        set is dropped meanwhile: the numbers in `cleaned` stay valid without references.
        """
        offset: cython.Py_ssize_t = 0
        before: cython.Py_ssize_t = segment.used
        cleaned: dict = {}
        number: cython.uint
        while offset < segment.size:
            number = segment.holder_set_at(offset)
            if number == 0:
                offset += segment.width
                continue
            clean = cleaned.get(number)
            if clean is None:
                clean = cleaned[number] = self._sets.without_retired(number)
            segment.assign(offset, clean, self._sets)
            if clean != 0:  # otherwise another slot may have moved here: look again
                offset += segment.width
        return before - segment.used
