# cython: warn.unreachable=False, boundscheck=False, wraparound=False, initializedcheck=False
"""Look-ups in the map of blocks: which holders hold the blocks of a prompt."""

from __future__ import annotations

from array import array

import cython

from indexer.kernel.holder_sets import HolderSets
from indexer.kernel.holders import Holders
from indexer.kernel.reclaim import EvictionRanks
from indexer.kernel.segment import Segment, segment_of


@cython.cclass
class BlockLookup:
    """A view of a block table's map of blocks. It changes nothing but the age of slots."""

    def __init__(
        self, blocks: list[Segment], sets: HolderSets, holders: Holders, ranks: EvictionRanks
    ) -> None:
        self._blocks = blocks
        self._sets = sets
        self._holders = holders
        self._ranks = ranks

    def sets_of(
        self,
        keys: cython.ulonglong[::1],
        scope: cython.ulonglong,
        gap: cython.Py_ssize_t = 1,
    ) -> array[int]:
        """Return the holder sets of a prompt's leading blocks ('I'), and mark the blocks as used.

        scope: the model's. gap: blocks in a row that nobody holds before the look-up stops. Such
        blocks have set 0, and the array does not end with one.
        """
        count: cython.Py_ssize_t = len(keys)
        numbers = array("I", bytes(4 * count)) if count else array("I")
        i: cython.Py_ssize_t = 0
        missing: cython.Py_ssize_t = 0
        name: cython.ulonglong
        offset: cython.Py_ssize_t
        segment: Segment
        epoch: cython.uchar = self._ranks.epoch
        if count == 0:
            return numbers
        out: cython.uint[::1] = numbers
        while i < count:
            name = keys[i] ^ scope
            segment = self._blocks[segment_of(name)]
            offset = segment.find(name)
            i += 1
            if offset < 0:
                missing += 1
                if missing == gap:
                    break
                continue
            missing = 0
            out[i - 1] = segment.holder_set_at(offset)
            if segment.age_at(offset) != epoch:  # spares a write to memory for blocks in use
                segment.touch(offset, epoch)
        return numbers[: i - missing] if missing else numbers

    def holder_masks(self, keys: cython.ulonglong[::1], holders: cython.uint[::1]) -> array[int]:
        """Return an `array('Q')` with a mask for each block of `keys`.

        Bit `j` is set if `holders[j]` holds the block. There may be at most 64 holders.
        """
        masks = array("Q", bytes(8 * len(keys)))
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        offset: cython.Py_ssize_t
        name: cython.ulonglong
        mask: cython.ulonglong
        segment: Segment
        for i in range(len(keys)):
            mask = 0
            for j in range(len(holders)):
                name = keys[i] ^ self._holders.scopes[holders[j]]
                segment = self._blocks[segment_of(name)]
                offset = segment.find(name)
                if offset >= 0 and self._sets.holds(segment.holder_set_at(offset), holders[j]):
                    mask |= cython.cast(cython.ulonglong, 1) << j
            masks[i] = mask
        return masks
