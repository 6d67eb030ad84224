# cython: warn.unreachable=False, boundscheck=False, wraparound=False, initializedcheck=False
"""The block table as rows: what a worker holds and has announced, as absolute values.

A *name* is an engine hash, or the name of one part of an engine hash that stands for several of
our blocks. A *row* says what one holder of a worker has under a name, in two words:

    word 0    the block key
    word 1    holder id (32 bits) << 32 | copies (16 bits) << 16 | span (16 bits)

A *holder id* names a holder of the worker in every replica, whereas a holder is a number of one
table. Rows are absolute values, so to assign them again changes nothing. The row of an announcer
says only that it has announced the name; its copies mean nothing.
"""

from __future__ import annotations

from array import array

import cython

from indexer.kernel.segment import Segment, segment_of
from indexer.kernel.table import BlockTable, part_name

_BLOCK_WORDS = cython.declare(cython.Py_ssize_t, 2)
_LOW_32_BITS = cython.declare(cython.ulonglong, 0xFFFFFFFF)
_MOST_OF_A_NAME = cython.declare(cython.Py_ssize_t, 256)  # as `Meanings` allows
_MAX_COPIES = cython.declare(cython.Py_ssize_t, 0xFFFF)


@cython.cclass
class RowTable(BlockTable):
    """A block table that reads and assigns rows.

    `holders` and `holder_ids` are the holders of one worker, announcer included, and their ids:
    arrays of typecode 'I' in the same order.
    """

    def rows_of(
        self, names: cython.ulonglong[::1], holders: cython.uint[::1], holder_ids: cython.uint[::1]
    ) -> tuple[array[int], array[int]]:
        """Return the worker's rows: how many each of `names` has ('H'), and all of them ('Q')."""
        counts = array("H", bytes(2 * len(names)))
        rows = array("Q")
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        offset: cython.Py_ssize_t
        segment: Segment
        for i in range(len(names)):
            segment = self._mappings[segment_of(names[i])]
            offset = segment.find(names[i])
            while offset >= 0:
                for j in range(len(holders)):
                    if self.sets.holds(segment.holder_set_at(offset), holders[j]):
                        rows.append(segment.words[offset + 2])
                        rows.append(
                            cython.cast(cython.ulonglong, holder_ids[j]) << 32
                            | self._copies_of(holders[j], names[i]) << 16
                            | segment.span_at(offset)
                        )
                        counts[i] += 1
                offset = segment.find_next(names[i], offset)
        return counts, rows

    def assign(
        self,
        names: cython.ulonglong[::1],
        counts: cython.ushort[::1],
        rows: cython.ulonglong[::1],
        holders: cython.uint[::1],
        holder_ids: cython.uint[::1],
    ) -> None:
        """Let the worker have under each of `names` exactly what the rows say.

        Other workers, and other names, are left alone.

        Args:
            names: names, without repetition.
            counts: the number of rows of each name.
            rows: the rows of all names, in the same order. A row with an unknown holder id is
                skipped.
            holders: the worker's holders.
            holder_ids: their ids.

        Raises:
            ValueError: there are more or fewer rows than the counts say.
        """
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        first: cython.Py_ssize_t = 0
        last: cython.Py_ssize_t
        holder: cython.Py_ssize_t
        if 2 * sum(counts) != len(rows):
            raise ValueError(f"{sum(counts)} rows take twice as many words, not {len(rows)}")
        self._begin_event(len(names))
        for i in range(len(names)):
            last = first + 2 * counts[i]
            # Removals come first: copies are counted by name, and a removal drops all of them.
            self._remove_unlisted(names[i], rows[first:last], holders, holder_ids)
            for j in range(first, last, 2):
                holder = _holder_with_id(holders, holder_ids, rows[j + 1] >> 32)
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
        """Take from the worker's holders what they have under `name` and `rows` do not list."""
        segment: Segment = self._mappings[segment_of(name)]
        offset: cython.Py_ssize_t = segment.find(name)
        j: cython.Py_ssize_t
        gone = []  # collected before the first removal: a removal may move or free slots
        while offset >= 0:
            for j in range(len(holders)):
                if self.sets.holds(segment.holder_set_at(offset), holders[j]) and not _lists_row(
                    rows, segment.words[offset + 2], holder_ids[j]
                ):
                    gone.append((segment.words[offset + 2], holders[j]))
            offset = segment.find_next(name, offset)
        for key, holder in gone:
            self._remove_row(name, key, holder)

    def _remove_row(
        self, name: cython.ulonglong, key: cython.ulonglong, holder: cython.uint
    ) -> cython.void:
        """Take all copies of the block `key` under `name` from `holder`."""
        segment: Segment = self._mappings[segment_of(name)]
        offset: cython.Py_ssize_t = self._find_row_mapping(segment, name, key)
        after: cython.uint = self.sets.without_holder(segment.holder_set_at(offset), holder)
        segment.assign(offset, after, self.sets)
        if after == 0:
            self.mapping_count -= 1
        if not self._holders.announcer[holder]:
            self._copy_counts.drop(holder, name)
            self._remove_block_holder(key, holder)

    def _assign_row(
        self,
        name: cython.ulonglong,
        key: cython.ulonglong,
        word: cython.ulonglong,
        holder: cython.uint,
    ) -> cython.void:
        """Let `holder` have as many copies of `key` under `name` as `word`, the row's second, says.

        Unlike `store`, this adds nothing to what is there: the mapping is found or inserted, the
        holder is put into its set, and the refcount is moved up or down to the row's.
        """
        segment: Segment = self._mappings[segment_of(name)]
        offset: cython.Py_ssize_t = self._find_row_mapping(segment, name, key)
        copies: cython.Py_ssize_t = (word >> 16) & 0xFFFF
        held: cython.Py_ssize_t
        before: cython.uint = 0
        after: cython.uint = self.sets.with_holder(0, holder)
        if offset < 0:
            offset = self._insert(segment, name, after)
            segment.words[offset + 2] = key
            segment.words[offset + 1] |= (word & 0xFFFF) << 48
            self.mapping_count += 1
        else:
            before = segment.holder_set_at(offset)
            after = self.sets.with_holder(before, holder)
            segment.assign(offset, after, self.sets)
            segment.widen(offset, word & 0xFFFF)
        segment.touch(offset, self.ranks.epoch)
        if self._holders.announcer[holder]:
            return
        if after != before:  # the holder is new to this mapping, not necessarily to the block
            self._add_block_holder(key, holder, True)
        held = self._copies_of(holder, name)
        while held < copies:
            self._copy_counts.incref(holder, name)
            held += 1
        if held > copies:
            self._copy_counts.limit(holder, name, copies - 1)

    def _copies_of(self, holder: cython.uint, name: cython.ulonglong) -> cython.Py_ssize_t:
        """Return the copies of a name that `holder` has, at least one, as a row can tell them."""
        copies: cython.Py_ssize_t = 1 + self._copy_counts.extra_references(holder, name)
        return copies if copies < _MAX_COPIES else _MAX_COPIES

    def _find_row_mapping(
        self, segment: Segment, name: cython.ulonglong, key: cython.ulonglong
    ) -> cython.Py_ssize_t:
        """Return the offset of the mapping of `name` to `key`, or -1."""
        offset: cython.Py_ssize_t = segment.find(name)
        while offset >= 0 and segment.words[offset + 2] != key:
            offset = segment.find_next(name, offset)
        return offset

    def names_of(self, hashes: cython.ulonglong[::1], holders: cython.uint[::1]) -> array[int]:
        """Return `hashes` and the names of their parts, an `array('Q')` in no special order.

        Only mappings that one of `holders` is in tell how many parts a hash has.
        """
        names = array("Q", hashes)
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        offset: cython.Py_ssize_t
        segment: Segment
        for i in range(len(hashes)):
            segment = self._mappings[segment_of(hashes[i])]
            offset = segment.find(hashes[i])
            while offset >= 0:
                if segment.span_at(offset) > 1 and self._any_in_set(
                    segment.holder_set_at(offset), holders
                ):
                    for j in range(segment.span_at(offset) - 1):
                        names.append(part_name(hashes[i], j))
                offset = segment.find_next(hashes[i], offset)
        return names

    def names_in(self, segment_number: cython.Py_ssize_t, holders: cython.uint[::1]) -> array[int]:
        """Return the names under which `holders` have anything, in one of the 256 segments: 'Q'.

        A segment at a time keeps the work of one call small.
        """
        names = array("Q")
        segment: Segment = self._mappings[segment_number]
        offset: cython.Py_ssize_t
        for offset in range(0, segment.size, segment.width):
            if segment.holder_set_at(offset) != 0 and self._any_in_set(
                segment.holder_set_at(offset), holders
            ):
                names.append(segment.words[offset])
        return names

    def load_slots(self, words: cython.ulonglong[::1], width: cython.Py_ssize_t) -> None:
        """Insert slots of a dumped segment, blocks before mappings; see `Segment` for their words.

        They get other places than they had, by this process's hashes. Raises ValueError if a slot
        is there already, or a name has too many.
        """
        segments: list = self._blocks if width == _BLOCK_WORDS else self._mappings
        i: cython.Py_ssize_t
        offset: cython.Py_ssize_t
        same: cython.Py_ssize_t
        segment: Segment
        for i in range(0, len(words), width):
            segment = segments[segment_of(words[i])]
            offset = segment.find(words[i])
            same = 0
            while offset >= 0:
                same += 1
                if (
                    same == _MOST_OF_A_NAME
                    or width == _BLOCK_WORDS
                    or (segment.words[offset + 2] == words[i + 2])
                ):
                    raise ValueError(f"there is a slot of {words[i]:#x} too many")
                offset = segment.find_next(words[i], offset)
            offset = self._insert(segment, words[i], words[i + 1] & _LOW_32_BITS)
            segment.words[offset + 1] = words[i + 1]
            if width == _BLOCK_WORDS:
                self.block_count += 1
            else:
                segment.words[offset + 2] = words[i + 2]
                self.mapping_count += 1

    def _any_in_set(self, number: cython.uint, holders: cython.uint[::1]) -> cython.bint:
        """Return whether any of `holders` is in the set `number`."""
        j: cython.Py_ssize_t
        for j in range(len(holders)):
            if self.sets.holds(number, holders[j]):
                return True
        return False


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _holder_with_id(
    holders: cython.uint[::1], holder_ids: cython.uint[::1], holder_id: cython.ulonglong
) -> cython.Py_ssize_t:
    """Return the holder with `holder_id`, or -1."""
    j: cython.Py_ssize_t
    for j in range(len(holders)):
        if holder_ids[j] == holder_id:
            return holders[j]
    return -1


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _lists_row(
    rows: cython.ulonglong[::1], key: cython.ulonglong, holder_id: cython.ulonglong
) -> cython.bint:
    """Return whether `rows` list the block `key` for `holder_id`."""
    j: cython.Py_ssize_t
    for j in range(0, len(rows), 2):
        if rows[j] == key and rows[j + 1] >> 32 == holder_id:
            return True
    return False
