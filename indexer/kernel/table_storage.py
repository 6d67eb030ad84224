# cython: warn.unreachable=False, boundscheck=False, wraparound=False, initializedcheck=False
"""The slots of the block table: both maps, their memory bound, and what is tidied up later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cython

from indexer.kernel.holder_sets import HolderSets
from indexer.kernel.holders import Holders
from indexer.kernel.refcounts import Refcounts
from indexer.kernel.segment import Segment, segment_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK_WORDS = 2
_MAPPING_WORDS = 3
_SEGMENTS = cython.declare(cython.Py_ssize_t, 256)
_EXTRA_BYTES = cython.declare(
    cython.Py_ssize_t, 160
)  # one int -> int entry of a nested dictionary, with its two ints
_EPOCHS_PER_TABLE = cython.declare(cython.Py_ssize_t, 32)  # how finely the age of a slot is told


@cython.cclass
class TableStorage:
    """Slots of blocks and of mappings, in segments; see `BlockTable` for what they stand for.

    limit_bytes: above it no segment grows; its longest unused slots are evicted and counted.
    count_copies: whether a hash announced again means one more physical copy (vLLM) or the same
        copy announced again (set semantics).
    slot_bytes, block_count, mapping_count, copy_count: what is there now.
    evicted_blocks, evicted_mappings: how many were evicted for the memory bound so far.
    losers: members that have lost their first block so; the caller empties it.
    evictions: mappings evicted so, if `log_evictions` is set: name, block key, members; likewise.
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
        self._copy_counts = Refcounts()
        self._hash_counts = Refcounts()
        self._sweeping = set()
        self._next_to_sweep = 0
        self._epoch = 0
        self._stores = 0

    @property
    def holders(self) -> int:
        """How many members there have been at a time, at most."""
        return self._holders.count

    @property
    def copy_count(self) -> int:
        """Copies beyond the first."""
        return self._copy_counts.count + self._hash_counts.count

    def _count_slot_bytes(self) -> cython.void:
        self.slot_bytes = 8 * sum(segment.size for segment in self._blocks + self._mappings)

    # Slots

    def _insert(
        self, segment: Segment, name: cython.ulonglong, number: cython.uint
    ) -> cython.Py_ssize_t:
        if segment.is_full():
            self._make_room(segment)
        self.sets.move_reference(0, number)
        return segment.insert(name, number, self._epoch)

    def _set(self, segment: Segment, at: cython.Py_ssize_t, number: cython.uint) -> cython.void:
        """Give a slot another set; a slot with the empty set is free."""
        before: cython.uint = segment.number_at(at)
        if number == before:
            return
        self.sets.move_reference(before, number)
        if number == 0:
            segment.delete(at)
        else:
            segment.renumber(at, number)

    def _remove_block_holder(self, key: cython.ulonglong, holder: cython.uint) -> cython.void:
        """`holder` no longer holds the block `key` under one of its hashes."""
        if self._hash_counts.decref(holder, key):
            return
        name: cython.ulonglong = key ^ self._holders.scopes[holder]
        segment: Segment = self._blocks[segment_of(name)]
        at: cython.Py_ssize_t = segment.find(name)
        if at < 0:
            return
        before: cython.uint = segment.number_at(at)
        after: cython.uint = self.sets.without_holder(before, holder)
        if after == before:
            return
        self._holders.held[holder] -= 1
        self._set(segment, at, after)
        if after == 0:
            self.block_count -= 1

    # The memory bound

    @property
    def bytes_used(self) -> int:
        """What blocks, mappings, sets and copies occupy, in bytes."""
        return (
            self.slot_bytes
            + self.sets.bytes
            + (self._copy_counts.count + self._hash_counts.count) * _EXTRA_BYTES
        )

    def _advance_epoch(self, stored: cython.Py_ssize_t) -> cython.void:
        """Age the table by `stored` blocks; called before an event, when no set is in limbo."""
        self._stores += stored
        if self._stores * _EPOCHS_PER_TABLE > self.mapping_count + 4096:
            self._stores = 0
            self._epoch = (self._epoch + 1) & 0xFF
            if self.sets.has_many_unused():
                self.sets.collect()

    def _make_room(self, segment: Segment) -> cython.void:
        more: cython.Py_ssize_t = 8 * segment.growth()
        if self.bytes_used + more <= self.limit_bytes:
            segment.grow()
            self.slot_bytes += more
            return
        oldest = self._lowest_rank_to_evict(segment)
        at: cython.Py_ssize_t = 0
        while at < segment.size:
            if segment.number_at(at) != 0 and self._eviction_rank(segment, at) >= oldest:
                self._evict(segment, at)  # another may have moved in: look at the slot again
            else:
                at += segment.width

    def _eviction_rank(self, segment: Segment, at: cython.Py_ssize_t) -> cython.int:
        """How far a slot is up the list of those to evict: its age in epochs, 256 if unheld."""
        age: cython.int = (self._epoch - segment.age_at(at)) & 0xFF
        if segment.width == _MAPPING_WORDS:
            if not self._is_held(segment.number_at(at)):
                return 256
            if age > 0 and self._is_recently_used(segment.words[at + 2], segment.number_at(at)):
                return 0
        return age

    def _lowest_rank_to_evict(self, segment: Segment) -> int:
        """The least rank of the slots to evict, so that at least a sixteenth of them goes."""
        counts = [0] * 257
        at: cython.Py_ssize_t
        for at in range(0, segment.size, segment.width):
            if segment.number_at(at) != 0:
                counts[self._eviction_rank(segment, at)] += 1
        wanted = max(1, segment.used // 16)
        rank = 256
        while rank > 0:
            wanted -= counts[rank]
            if wanted <= 0:
                break
            rank -= 1
        return rank

    def _is_held(self, number: cython.uint) -> cython.bint:
        """Whether a set has a living member that is a holder."""
        retired = self.sets.retired
        return any(
            not self._holders.announcer[m] and m not in retired for m in self.sets.holders[number]
        )

    def _is_recently_used(self, key: cython.ulonglong, number: cython.uint) -> cython.bint:
        """Whether the block of a mapping was asked for or stored in the last few epochs."""
        first: cython.uint = self.sets.holders[number][0]
        name: cython.ulonglong = key ^ self._holders.scopes[first]
        segment: Segment = self._blocks[segment_of(name)]
        at: cython.Py_ssize_t = segment.find(name)
        age: cython.int
        if at < 0:
            return False
        age = (self._epoch - segment.age_at(at)) & 0xFF
        return age < _EPOCHS_PER_TABLE // 4

    def _evict(self, segment: Segment, at: cython.Py_ssize_t) -> cython.void:
        """Evict a slot; its holders lose the block: nothing is claimed that is not known."""
        number: cython.uint = segment.number_at(at)
        name: cython.ulonglong = segment.words[at]
        key: cython.ulonglong = segment.words[at + 2] if segment.width == _MAPPING_WORDS else 0
        retired = self.sets.retired
        self._set(segment, at, 0)
        for holder in self.sets.holders[number]:
            if self._holders.announcer[holder] or holder in retired:
                continue
            if self._holders.lost[holder] == 0:
                self.evicted_holders.append(holder)
            self._holders.lost[holder] += 1
            if segment.width != _MAPPING_WORDS:
                self._holders.held[holder] -= 1
                continue
            while self._copy_counts.decref(holder, name):
                pass
            self._remove_block_holder(key, holder)
        if segment.width == _MAPPING_WORDS:
            self.mapping_count -= 1
            self.evicted_mappings += 1
            if self.log_evictions:
                self.eviction_log.append((name, key, self.sets.holders[number]))
        else:
            self.block_count -= 1
            self.evicted_blocks += 1

    # Tidying up

    def sweep(self, segments: int) -> bool:
        """Clear retired members out of the next `segments` segments of both maps.

        Returns whether there is more to do. A pass over all 256 segments gives the numbers of the
        members retired before it began free again.
        """
        retired = self.sets.retired
        if not retired:
            return False
        if self._next_to_sweep == 0:
            self._sweeping = set(retired)
        for _ in range(min(segments, _SEGMENTS - self._next_to_sweep)):
            self.block_count -= self._sweep_segment(self._blocks[self._next_to_sweep])
            self.mapping_count -= self._sweep_segment(self._mappings[self._next_to_sweep])
            self._next_to_sweep += 1
        if self._next_to_sweep == _SEGMENTS:
            self._next_to_sweep = 0
            self.sets.forget_retired(self._sweeping)
            self._holders.free(self._sweeping)
        return bool(retired)

    def _sweep_segment(self, segment: Segment) -> int:
        """Rewrite the sets of one segment without their dead members; returns the slots freed."""
        at: cython.Py_ssize_t = 0
        before: cython.Py_ssize_t = segment.used
        cleaned: dict = {}
        number: cython.uint
        while at < segment.size:
            number = segment.number_at(at)
            if number == 0:
                at += segment.width
                continue
            clean = cleaned.get(number)
            if clean is None:
                clean = cleaned[number] = self.sets.without_retired(number)
            self._set(segment, at, clean)
            if clean != 0:
                at += segment.width
        return before - segment.used

    # Snapshots

    def dump(self) -> Iterator[dict[str, Any]]:
        """What `load` takes, in records of bounded size.

        Nothing may be stored, removed or swept before the last one; asking is harmless.
        """
        yield {
            "holders": self._holders.dump(),
            "sets": self.sets.dump(),
            "copies": self._copy_counts.dump(),
            "shared": self._hash_counts.dump(),
            "blocks": self.block_count,
            "mappings": self.mapping_count,
            "epoch": self._epoch,
        }
        for segment in [*self._blocks, *self._mappings]:
            yield segment.dump()

    def load(self, first: dict[str, Any], records: Iterator[dict[str, Any]]) -> None:
        """Be as the slots that were dumped. Raises what a malformed record makes it raise."""
        self._holders.load(first["holders"])
        self.sets.load(first["sets"])
        self._copy_counts.load(first["copies"])
        self._hash_counts.load(first["shared"])
        self.block_count, self.mapping_count = first["blocks"], first["mappings"]
        self._epoch = first["epoch"]
        for segment in [*self._blocks, *self._mappings]:
            segment.load(next(records))
        self._count_slot_bytes()
