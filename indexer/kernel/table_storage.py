# cython: warn.unreachable=False, boundscheck=False, wraparound=False, initializedcheck=False
"""The storage of the block table: both hash maps, their holders, and the memory bound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cython

from indexer.kernel.holder_sets import HolderSets
from indexer.kernel.holders import Holders, Refcounts
from indexer.kernel.reclaim import EvictionRanks, Sweep
from indexer.kernel.segment import Segment, hash_of, passed_slots, segment_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK_WORDS = 2
_MAPPING_WORDS = 3
_SEGMENTS = cython.declare(cython.Py_ssize_t, 256)
# One int -> int entry of a nested dictionary, with its two ints.
_EXTRA_BYTES = cython.declare(cython.Py_ssize_t, 160)


@cython.cclass
class TableStorage:
    """Slots of blocks and of mappings; see `BlockTable` for what they stand for.

    Attributes:
        limit_bytes: at this limit no segment grows any more; slots are evicted instead. Holder
            sets and refcounts may take a sixteenth more.
        count_copies: whether a hash that is announced again means one more physical copy (vLLM)
            or the same copy announced again (set semantics).
        sets: the pool of holder sets.
        slot_bytes: bytes of all segments.
        block_count, mapping_count: slots in use.
        ranks: the order of eviction.
        evicted_blocks, evicted_mappings: evictions so far.
        evicted_holders: those that lost their first block to an eviction. The caller empties it.
        log_evictions: whether to fill `eviction_log`.
        eviction_log: name, block key and holders of each evicted mapping. The caller empties it.
    """

    def __init__(self, limit_bytes: int, count_copies: bool = True) -> None:
        self.limit_bytes = limit_bytes
        self.count_copies = count_copies
        self.sets = HolderSets()
        self._blocks = [Segment(_BLOCK_WORDS) for _ in range(_SEGMENTS)]
        self._mappings = [Segment(_MAPPING_WORDS) for _ in range(_SEGMENTS)]
        self._count_slot_bytes()
        self.block_count = self.mapping_count = 0
        self.evicted_blocks = self.evicted_mappings = 0
        self.evicted_holders = []
        self.log_evictions = False
        self.eviction_log = []
        self._holders = Holders()
        self.ranks = EvictionRanks(self.sets, self._holders, self._blocks)
        self._copy_counts = Refcounts()  # by engine hash: physical copies beyond the first
        self._hash_counts = Refcounts()  # by block key: hashes that one holder holds it under
        self._sweep = Sweep(self._blocks, self._mappings, self.sets, self._holders)
        self._next_to_shed = 0

    @property
    def holders(self) -> int:
        """The largest number of holders and announcers there have been at a time."""
        return self._holders.count

    def _count_slot_bytes(self) -> cython.void:
        self.slot_bytes = 8 * sum(segment.size for segment in self._blocks + self._mappings)

    # Holders

    def new_holder(self, scope: cython.ulonglong, announcer: cython.bint = False) -> int:
        """Return a number for a new holder of blocks in `scope`, or for a new announcer."""
        return self._holders.new(scope, announcer)

    def retire(self, holder: int) -> None:
        """Forget what `holder` holds or has announced, in constant time.

        The number stays in sets until `sweep` has been through all of them, so the caller must
        stop counting it in scores at once. A holder that holds nothing, and has lost nothing to an
        eviction, is in no set: its number is free again, so that to clear it costs no sweep.
        """
        if self._holders.is_empty(holder):
            self._holders.free({holder})
            return
        self.sets.retired.add(holder)
        self._copy_counts.forget(holder)
        self._hash_counts.forget(holder)

    def held_by(self, holder: cython.Py_ssize_t) -> int:
        """Return how many blocks `holder` holds."""
        return self._holders.held[holder]

    # Slots

    def _insert(
        self, segment: Segment, name: cython.ulonglong, number: cython.uint
    ) -> cython.Py_ssize_t:
        """Use a free slot of `segment` for `name`; return its offset.

        All offsets into the segment that the caller has are invalid afterwards: making room moves
        and evicts slots.
        """
        if segment.is_full():
            self._make_room(segment)
        self.sets.move_reference(0, number)
        return segment.insert(name, number, self.ranks.epoch)

    def _add_block_holder(
        self, key: cython.ulonglong, holder: cython.uint, new_hash: cython.bint
    ) -> cython.bint:
        """Let `holder` hold the block `key`; True if it did not before.

        new_hash: under another engine hash than before, if it did. If it holds the block under two,
        the block must outlive the removal of either.
        """
        name: cython.ulonglong = key ^ self._holders.scopes[holder]
        hashed: cython.ulonglong = hash_of(name)
        segment: Segment = self._blocks[cython.cast(cython.Py_ssize_t, hashed >> 56)]
        offset: cython.Py_ssize_t = segment.find_hashed(name, hashed)
        before: cython.uint = 0 if offset < 0 else segment.holder_set_at(offset)
        after: cython.uint = self.sets.with_holder(before, holder)
        if offset < 0:
            self._insert(segment, name, after)
            self.block_count += 1
            self._holders.held[holder] += 1
            return True
        segment.touch(offset, self.ranks.epoch)
        if after != before:
            segment.assign(offset, after, self.sets)
            self._holders.held[holder] += 1
        elif new_hash:
            self._hash_counts.incref(holder, key)
        return after != before

    def _remove_block_holder(self, key: cython.ulonglong, holder: cython.uint) -> cython.void:
        """Count one hash less under which `holder` holds the block `key`; after the last, none."""
        if self._hash_counts.decref(holder, key):
            return
        name: cython.ulonglong = key ^ self._holders.scopes[holder]
        segment: Segment = self._blocks[segment_of(name)]
        offset: cython.Py_ssize_t = segment.find(name)
        if offset < 0:
            return
        before: cython.uint = segment.holder_set_at(offset)
        after: cython.uint = self.sets.without_holder(before, holder)
        if after == before:
            return
        self._holders.held[holder] -= 1
        segment.assign(offset, after, self.sets)
        if after == 0:
            self.block_count -= 1

    # The memory bound

    @property
    def bytes_used(self) -> int:
        """The bytes that blocks, mappings, holder sets and refcounts occupy."""
        return self._bytes()

    def _bytes(self) -> cython.Py_ssize_t:
        return (
            self.slot_bytes
            + self.sets.bytes
            + (self._copy_counts.count + self._hash_counts.count) * _EXTRA_BYTES
        )

    @property
    def steps(self) -> int:
        """What searches and new holder sets have cost so far; slots of all tables count."""
        return passed_slots() + self.sets.passed

    def _begin_event(self, stored: cython.Py_ssize_t) -> cython.void:
        """Count `stored` blocks for the ages of slots, and keep within the memory bound.

        Each event calls this before it changes anything: `collect` must not run while a set
        number is on its way into a slot.
        """
        is_new_epoch: cython.bint = self.ranks.advance(stored, self.mapping_count)
        if (is_new_epoch and self.sets.has_many_unused()) or self.sets.wastes_memory():
            self.sets.collect()
        if self._bytes() > self.limit_bytes + self.limit_bytes // 16:
            self._shed(stored)

    def _shed(self, stored: cython.Py_ssize_t) -> cython.void:
        """Give memory back that holder sets and refcounts take beyond the bound.

        An event of `stored` blocks can give slots that exist already two more sets for each. So
        this evicts twice as many slots, if it takes as many, a segment of each map at a time.
        """
        enough = self.evicted_mappings + self.evicted_blocks + 2 * stored
        unused: cython.Py_ssize_t = self.sets.bytes - self.sets.live_bytes
        for _ in range(_SEGMENTS):
            evicted = self.evicted_mappings + self.evicted_blocks
            if evicted > enough or self._bytes() - unused <= self.limit_bytes:
                break
            self._evict_oldest(self._mappings[self._next_to_shed])
            self._evict_oldest(self._blocks[self._next_to_shed])
            self._next_to_shed = (self._next_to_shed + 1) % _SEGMENTS
            unused = self.sets.bytes - self.sets.live_bytes
        if unused > self.sets.bytes // 8:
            self.sets.collect()

    def _make_room(self, segment: Segment) -> cython.void:
        """Grow a full segment within the memory bound, or evict at least a sixteenth of its slots.

        Names are spread evenly, so to evict from the segment that is full, and not from the whole
        table, costs little accuracy, and bounds the work of one insertion.
        """
        more: cython.Py_ssize_t = 8 * segment.growth()
        if self._bytes() + more <= self.limit_bytes:
            segment.grow()
            self.slot_bytes += more
        else:
            self._evict_oldest(segment)

    def _evict_oldest(self, segment: Segment) -> cython.void:
        """Evict at least a sixteenth of a segment's slots."""
        lowest: cython.int = self.ranks.lowest_to_evict(segment)
        offset: cython.Py_ssize_t = 0
        while offset < segment.size:
            if segment.holder_set_at(offset) != 0 and self.ranks.rank(segment, offset) >= lowest:
                self._evict(segment, offset)  # another slot may have moved here: look again
            else:
                offset += segment.width

    def _evict(self, segment: Segment, offset: cython.Py_ssize_t) -> cython.void:
        """Evict a slot. Its holders lose the block, so the index claims too little, not too much.

        Without its mapping a block could not be removed by a later event, so a mapping takes its
        blocks along. A block may go alone: its mappings keep their meaning, and a later removal
        finds no block to remove.
        """
        number: cython.uint = segment.holder_set_at(offset)
        name: cython.ulonglong = segment.words[offset]
        key: cython.ulonglong = segment.words[offset + 2] if segment.has_keys else 0
        retired = self.sets.retired
        segment.assign(offset, 0, self.sets)  # the set stays readable: `collect` does not run here
        for holder in self.sets.holders[number]:
            if self._holders.announcer[holder] or holder in retired:
                continue
            if self._holders.evicted[holder] == 0:
                self.evicted_holders.append(holder)
            self._holders.evicted[holder] += 1
            if not segment.has_keys:
                self._holders.held[holder] -= 1
                continue
            self._copy_counts.drop(holder, name)
            # In the other map, so no slot of `segment` moves.
            self._remove_block_holder(key, holder)
        if segment.has_keys:
            self.mapping_count -= 1
            self.evicted_mappings += 1
            if self.log_evictions:
                self.eviction_log.append((name, key, self.sets.holders[number]))
        else:
            self.block_count -= 1
            self.evicted_blocks += 1

    def sweep(self, segments: int) -> bool:
        """Take retired holders out of `segments` more segments; True if there is more to do."""
        freed_blocks, freed_mappings = self._sweep.run(segments)
        self.block_count -= freed_blocks
        self.mapping_count -= freed_mappings
        return bool(self.sets.retired)

    # Snapshots

    def dump(self) -> Iterator[dict[str, Any]]:
        """Return the table as `load` takes it, in records of bounded size.

        Nothing may be stored, removed or swept before the last record. Look-ups are harmless.
        """
        self.sets.collect()
        yield {
            "holders": self._holders.dump(),
            "sets": self.sets.dump(),
            "copies": self._copy_counts.dump(),
            "shared": self._hash_counts.dump(),
            "blocks": self.block_count,
            "mappings": self.mapping_count,
            "epoch": self.ranks.epoch,
        }
        for segment in [*self._blocks, *self._mappings]:
            yield segment.dump()

    def load(self, first: dict[str, Any]) -> None:
        """Replace all but the slots by a dump's first record, which `DumpedTable` has checked."""
        self._holders.load(first["holders"])
        self.sets.load(first["sets"])
        self._copy_counts.load(first["copies"])
        self._hash_counts.load(first["shared"])
        self.ranks.epoch = first["epoch"]
        for segment in self._blocks + self._mappings:
            used = first["mappings"] if segment.has_keys else first["blocks"]
            self.slot_bytes -= 8 * segment.size
            segment.reserve(used // _SEGMENTS, self.limit_bytes - self._bytes() - 8 * segment.size)
            self.slot_bytes += 8 * segment.size
