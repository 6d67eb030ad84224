# cython: warn.unreachable=False, boundscheck=False, wraparound=False, initializedcheck=False
"""The block table read and written by rows: what a worker holds and knows, as absolute values.

A *name* is an engine hash, or a part of one that stands for several of our blocks. A *row* says
what one seat of a worker has under a name, in two words:

    word 0    the block key
    word 1    seat (32 bits) << 32 | copies (16 bits) << 16 | span (16 bits)

A *seat* is the worker's own number for one of its members, the same wherever the worker is kept:
members are numbers of one table only. Rows are absolute, so writing them again changes nothing.
"""

from __future__ import annotations

from array import array

import cython

from indexer.kernel.segment import Segment, segment_of
from indexer.kernel.table import BlockTable, part_name

_MOST_COPIES = cython.declare(cython.Py_ssize_t, 0xFFFF)


@cython.cclass
class RowTable(BlockTable):
    """See `BlockTable`; members and seats are given pairwise, as arrays of typecode 'I'."""

    def rows_of(
        self, names: cython.ulonglong[::1], holders: cython.uint[::1], holder_ids: cython.uint[::1]
    ) -> tuple[array[int], array[int]]:
        """How many rows each of `names` has, an `array('H')`; and the rows, in order, 'Q'."""
        counts = array("H", bytes(2 * len(names)))
        rows = array("Q")
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        at: cython.Py_ssize_t
        segment: Segment
        for i in range(len(names)):
            segment = self._mappings[segment_of(names[i])]
            at = segment.find(names[i])
            while at >= 0:
                for j in range(len(holders)):
                    if self.sets.holds(segment.number_at(at), holders[j]):
                        rows.append(segment.words[at + 2])
                        rows.append(
                            cython.cast(cython.ulonglong, holder_ids[j]) << 32
                            | self._copies_of(holders[j], names[i]) << 16
                            | segment.span_at(at)
                        )
                        counts[i] += 1
                at = segment.find_next(names[i], at)
        return counts, rows

    def assign(
        self,
        names: cython.ulonglong[::1],
        counts: cython.ushort[::1],
        rows: cython.ulonglong[::1],
        holders: cython.uint[::1],
        holder_ids: cython.uint[::1],
    ) -> None:
        """The worker has under each of `names` just what its rows say; others' are left alone.

        Rows of seats that are not given are left out. Raises ValueError if there are not as many
        rows as the counts say.
        """
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        first: cython.Py_ssize_t = 0
        last: cython.Py_ssize_t
        holder: cython.Py_ssize_t
        if 2 * sum(counts) != len(rows):
            raise ValueError(f"{sum(counts)} rows take twice as many words, not {len(rows)}")
        self._advance_epoch(len(names))
        for i in range(len(names)):
            last = first + 2 * counts[i]
            self._remove_unlisted(names[i], rows[first:last], holders, holder_ids)
            for j in range(first, last, 2):
                holder = _holder_at(holders, holder_ids, rows[j + 1] >> 32)
                if holder >= 0:
                    self._assign_row(names[i], rows[j], rows[j + 1], holder)
            first = last

    def _remove_unlisted(
        self,
        name: cython.ulonglong,
        rows: cython.ulonglong[::1],
        holders: cython.uint[::1],
        holder_ids: cython.uint[::1],
    ) -> cython.void:
        """The worker's members lose what they have under `name` and `rows` do not tell of."""
        segment: Segment = self._mappings[segment_of(name)]
        at: cython.Py_ssize_t = segment.find(name)
        j: cython.Py_ssize_t
        gone = []
        while at >= 0:
            for j in range(len(holders)):
                if self.sets.holds(segment.number_at(at), holders[j]) and not _lists(
                    rows, segment.words[at + 2], holder_ids[j]
                ):
                    gone.append((segment.words[at + 2], holders[j]))
            at = segment.find_next(name, at)
        for key, holder in gone:
            self._remove_row(name, key, holder)

    def _remove_row(
        self, name: cython.ulonglong, key: cython.ulonglong, holder: cython.uint
    ) -> cython.void:
        segment: Segment = self._mappings[segment_of(name)]
        at: cython.Py_ssize_t = self._mapping_at(segment, name, key)
        after: cython.uint = self.sets.without_holder(segment.number_at(at), holder)
        self._set(segment, at, after)
        if after == 0:
            self.mapping_count -= 1
        if not self._holders.announcer[holder]:
            while self._copy_counts.decref(holder, name):
                pass
            self._remove_block_holder(key, holder)

    def _assign_row(
        self,
        name: cython.ulonglong,
        key: cython.ulonglong,
        word: cython.ulonglong,
        holder: cython.uint,
    ) -> cython.void:
        """`holder` has as many copies under `name` as the row's second word says."""
        segment: Segment = self._mappings[segment_of(name)]
        at: cython.Py_ssize_t = self._mapping_at(segment, name, key)
        copies: cython.Py_ssize_t = (word >> 16) & 0xFFFF
        held: cython.Py_ssize_t
        before: cython.uint = 0
        after: cython.uint = self.sets.with_holder(0, holder)
        if at < 0:
            at = self._insert(segment, name, after)
            segment.words[at + 2] = key
            segment.words[at + 1] |= (word & 0xFFFF) << 48
            self.mapping_count += 1
        else:
            before = segment.number_at(at)
            after = self.sets.with_holder(before, holder)
            self._set(segment, at, after)
            segment.widen(at, word & 0xFFFF)
        segment.touch(at, self._epoch)
        if self._holders.announcer[holder]:
            return
        if after != before:
            self._add_block_holder(key, holder, True)
        held = self._copies_of(holder, name)
        while held < copies:
            self._copy_counts.incref(holder, name)
            held += 1
        while held > copies and self._copy_counts.decref(holder, name):
            held -= 1

    def _copies_of(self, holder: cython.uint, name: cython.ulonglong) -> cython.Py_ssize_t:
        """Copies of something `holder` has at least one of."""
        copies: cython.Py_ssize_t = 1 + self._copy_counts.extra_references(holder, name)
        return copies if copies < _MOST_COPIES else _MOST_COPIES

    def _mapping_at(
        self, segment: Segment, name: cython.ulonglong, key: cython.ulonglong
    ) -> cython.Py_ssize_t:
        at: cython.Py_ssize_t = segment.find(name)
        while at >= 0 and segment.words[at + 2] != key:
            at = segment.find_next(name, at)
        return at

    def names_of(self, hashes: cython.ulonglong[::1], holders: cython.uint[::1]) -> array[int]:
        """`hashes`, and the names of their parts as far as `holders` have them: an `array('Q')`."""
        names = array("Q", hashes)
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        at: cython.Py_ssize_t
        segment: Segment
        for i in range(len(hashes)):
            segment = self._mappings[segment_of(hashes[i])]
            at = segment.find(hashes[i])
            while at >= 0:
                if segment.span_at(at) > 1 and self._any_holds(segment.number_at(at), holders):
                    for j in range(segment.span_at(at) - 1):
                        names.append(part_name(hashes[i], j))
                at = segment.find_next(hashes[i], at)
        return names

    def names_in(self, segment_number: cython.Py_ssize_t, holders: cython.uint[::1]) -> array[int]:
        """All names under which `holders` have anything in one of the 256 segments: 'Q'."""
        names = array("Q")
        segment: Segment = self._mappings[segment_number]
        at: cython.Py_ssize_t
        for at in range(0, segment.size, segment.width):
            if segment.number_at(at) != 0 and self._any_holds(segment.number_at(at), holders):
                names.append(segment.words[at])
        return names

    def _any_holds(self, number: cython.uint, holders: cython.uint[::1]) -> cython.bint:
        j: cython.Py_ssize_t
        for j in range(len(holders)):
            if self.sets.holds(number, holders[j]):
                return True
        return False

    def holder_masks(self, keys: cython.ulonglong[::1], holders: cython.uint[::1]) -> array[int]:
        """Which of at most 64 `holders` hold each block of `keys`: an `array('Q')` of bits."""
        found = array("Q", bytes(8 * len(keys)))
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        at: cython.Py_ssize_t
        name: cython.ulonglong
        bits: cython.ulonglong
        segment: Segment
        for i in range(len(keys)):
            bits = 0
            for j in range(len(holders)):
                name = keys[i] ^ self._holders.scopes[holders[j]]
                segment = self._blocks[segment_of(name)]
                at = segment.find(name)
                if at >= 0 and self.sets.holds(segment.number_at(at), holders[j]):
                    bits |= cython.cast(cython.ulonglong, 1) << j
            found[i] = bits
        return found


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _holder_at(
    holders: cython.uint[::1], holder_ids: cython.uint[::1], holder_id: cython.ulonglong
) -> cython.Py_ssize_t:
    j: cython.Py_ssize_t
    for j in range(len(holders)):
        if holder_ids[j] == holder_id:
            return holders[j]
    return -1


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _lists(
    rows: cython.ulonglong[::1], key: cython.ulonglong, holder_id: cython.ulonglong
) -> cython.bint:
    """Whether `rows` tell of `holder_id` having the block `key`."""
    j: cython.Py_ssize_t
    for j in range(0, len(rows), 2):
        if rows[j] == key and rows[j + 1] >> 32 == holder_id:
            return True
    return False
