# cython: warn.unreachable=False, boundscheck=False, wraparound=False, initializedcheck=False
"""Look-ups in both maps: which holders hold the blocks of a prompt, what an engine hash means."""

from __future__ import annotations

from array import array

import cython

from indexer.kernel.holder_sets import HolderSets
from indexer.kernel.holders import Holders
from indexer.kernel.reclaim import EvictionRanks
from indexer.kernel.segment import Segment, hash_of, segment_of

_LOW_32_BITS = cython.declare(cython.ulonglong, 0xFFFFFFFF)

# Chosen so that no honest fleet comes near: an engine gives a hash one meaning, and all engines
# give it the same one, unless they merely count their blocks.
_MEANINGS_OF_A_WORKER = cython.declare(cython.Py_ssize_t, 8)
_MEANINGS = cython.declare(cython.Py_ssize_t, 256)


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
        self, keys: cython.ulonglong[::1], scope: cython.ulonglong, gap: cython.Py_ssize_t = 1
    ) -> array[int]:
        """Return the holder sets of a prompt's leading blocks ('I'), and mark the blocks as used.

        scope: the model's. gap: blocks in a row that nobody holds before the look-up stops. Such
        blocks have set 0, and the array does not end with one.
        """
        count: cython.Py_ssize_t = len(keys)
        if count == 0:
            return array("I")
        numbers = array("I", bytes(4 * count))
        i: cython.Py_ssize_t = 0
        missing: cython.Py_ssize_t = 0
        name: cython.ulonglong
        hashed: cython.ulonglong
        word: cython.ulonglong
        offset: cython.Py_ssize_t
        segment: Segment
        epoch: cython.uchar = self._ranks.epoch
        out: cython.uint[::1] = numbers
        while i < count:
            name = keys[i] ^ scope
            hashed = hash_of(name)
            segment = self._blocks[cython.cast(cython.Py_ssize_t, hashed >> 56)]
            offset = segment.find_hashed(name, hashed)
            i += 1
            if offset < 0:
                missing += 1
                if missing == gap:
                    break
                continue
            missing = 0
            word = segment.words[offset + 1]  # see `Segment`
            out[i - 1] = word & _LOW_32_BITS
            if (word >> 32) & 0xFF != epoch:  # spares a write to memory for blocks in use
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


@cython.cclass
class Meanings:
    """Searches among the mappings of one engine hash, which are slots of one name.

    Each search for a name may go through all of its mappings. So a stranger must not add to them
    without end, and one worker not even many. Mappings of workers that are gone make room.

    Attributes:
        has_room: whether one more mapping may be inserted, if `find_key` has found none.
        freed: slots that it has freed for that.
    """

    def __init__(self, sets: HolderSets) -> None:
        self._sets = sets
        self.has_room = True
        self.freed = 0

    def find(
        self, segment: Segment, engine_hash: cython.ulonglong, holder: cython.uint
    ) -> cython.Py_ssize_t:
        """Return the offset of the mapping of `engine_hash` whose set has `holder`, or -1."""
        offset: cython.Py_ssize_t = segment.find(engine_hash)
        while offset >= 0 and not self._sets.holds(segment.holder_set_at(offset), holder):
            offset = segment.find_next(engine_hash, offset)
        return offset

    def find_key(
        self,
        segment: Segment,
        offset: cython.Py_ssize_t,
        key: cython.ulonglong,
        announcer: cython.uint,
    ) -> cython.Py_ssize_t:
        """Return the offset of the mapping to `key` of the name at `offset`, its first slot; or -1.

        Then `has_room` says whether `announcer` may announce this meaning, too. The slots of the
        segment may have moved.
        """
        name: cython.ulonglong = segment.words[offset]
        first: cython.Py_ssize_t = offset
        meanings: cython.Py_ssize_t = 0
        own: cython.Py_ssize_t = 0
        while offset >= 0:
            if segment.words[offset + 2] == key:
                return offset
            meanings += 1
            own += self._sets.holds(segment.holder_set_at(offset), announcer)
            offset = segment.find_next(name, offset)
        self.freed = 0
        self.has_room = own < _MEANINGS_OF_A_WORKER
        if self.has_room and meanings >= _MEANINGS:
            self.has_room = self._free_retired(segment, first)
        return -1

    def _free_retired(self, segment: Segment, offset: cython.Py_ssize_t) -> cython.bint:
        """Free a slot of the name at `offset` whose holders have all retired; False without one."""
        name: cython.ulonglong = segment.words[offset]
        while offset >= 0:
            if self._sets.retired.issuperset(self._sets.holders[segment.holder_set_at(offset)]):
                segment.assign(offset, 0, self._sets)
                self.freed = 1
                return True
            offset = segment.find_next(name, offset)
        return False
