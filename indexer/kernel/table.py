# cython: warn.unreachable=False, boundscheck=False, wraparound=False, initializedcheck=False
"""The block table: which holders hold which block, and which engine hash means which block.

Two hash maps share one layout (`Segment`) and one pool of interned sets (`HolderSets`):

    blocks    block key ^ scope         -> the holders of the block
    mappings  (engine hash, block key)  -> the holders that hold the block under this hash, and
                                           the announcers of the workers that announced it

A *holder* is a worker's part in one tier and group, as a small number. An *announcer* is a number
of the same kind: it says that a worker has announced what an engine hash means. A mapping must
outlive the copies it was announced for, because offload tiers announce bare hashes later, so the
announcer stays in its set when the holders have left it. It also keeps engine hashes opaque: a
hash resolves only for the workers that announced it.

Neighbouring blocks of a prompt nearly always have the same holders. So a block's value is the
number of an interned set: to add a holder is a remembered transition from one number to another,
a prefix walk is a run-length scan, and to retire a holder touches neither blocks nor sets
(`sweep` takes it out in slices later).

There is no lock: one thread, the event loop's, makes all calls.
"""

from __future__ import annotations

from array import array

import cython

from indexer.kernel.lookups import BlockLookup, Meanings
from indexer.kernel.segment import Segment, hash_of, segment_of
from indexer.kernel.table_storage import TableStorage


@cython.cclass
class BlockTable(TableStorage):
    """Applies events to blocks and mappings, within a bound of bytes.

    It inherits the storage in place of having one: each event reads and writes a dozen fields of
    it per block, and compiled code reaches its own fields without another object in between.

    Attributes:
        lookup: finds the holders of a prompt's blocks.
    """

    def __init__(self, limit_bytes: int, count_copies: bool = True) -> None:
        super().__init__(limit_bytes, count_copies)
        self.lookup = BlockLookup(self._blocks, self.sets, self._holders, self.ranks)
        self._meanings = Meanings(self.sets)

    # Events

    def store(
        self,
        hashes: array,
        keys: array,
        holder: cython.uint,
        announcer: cython.uint,
        new_copies: cython.bint = True,
    ) -> int:
        """Let `holder` hold the blocks `keys` under `hashes`, as announced by `announcer`.

        There may be a whole multiple (the span) of keys: then each hash stands for `span` blocks.
        The last one is mapped by the hash itself, to which a child's parent hash refers; the others
        by names of the hash's parts. new_copies: whether a block that `holder` holds already has
        one more copy now. Returns how many of `hashes` had too many meanings, and were refused.
        Raises ValueError if the keys do not spread evenly.
        """
        count: cython.Py_ssize_t = len(hashes)
        span: cython.Py_ssize_t = len(keys) // max(count, 1)
        names: cython.p_ulonglong = items_of(hashes) if cython.compiled else hashes  # type: ignore[name-defined]  # noqa: F821
        all_keys: cython.p_ulonglong = items_of(keys) if cython.compiled else keys  # type: ignore[name-defined]  # noqa: F821
        if count == 0:
            return 0
        if span * count != len(keys) or span < 1 or span > 0xFFFF:
            raise ValueError(f"{len(keys)} block keys do not spread over {count} engine hashes")
        new_copies &= self.count_copies
        self._begin_event(len(keys))
        self._prefetch(self._mappings, names, count, 0)
        self._prefetch(self._blocks, all_keys, len(keys), self._holders.scopes[holder])
        return self._store_all(names, all_keys, count, span, holder, announcer, new_copies)

    def _store_all(
        self,
        names: cython.p_ulonglong,
        keys: cython.p_ulonglong,
        count: cython.Py_ssize_t,
        span: cython.Py_ssize_t,
        holder: cython.uint,
        announcer: cython.uint,
        new_copies: cython.bint,
    ) -> cython.Py_ssize_t:
        refused: cython.Py_ssize_t = 0
        is_stored: cython.bint
        key: cython.ulonglong
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        for i in range(count):
            is_stored = True
            for j in range(span - 1):
                is_stored &= self._store_one(
                    part_name(names[i], j), keys[i * span + j], holder, announcer, 1, new_copies
                )
            key = keys[(i + 1) * span - 1]
            is_stored &= self._store_one(names[i], key, holder, announcer, span, new_copies)
            refused += not is_stored
        return refused

    def store_known(
        self,
        hashes: cython.ulonglong[::1],
        holder: cython.uint,
        announcer: cython.uint,
        new_copies: cython.bint = True,
        last_blocks: cython.Py_ssize_t = 0,
    ) -> int:
        """Let `holder` hold the blocks that `announcer` announced `hashes` for before.

        Of the blocks that a hash stands for, `holder` gets the last `last_blocks`; 0: all.
        Returns how many of `hashes` were never announced; those change nothing.
        """
        unknown: cython.Py_ssize_t = 0
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        offset: cython.Py_ssize_t
        span: cython.Py_ssize_t
        segment: Segment
        new_copies = new_copies and self.count_copies
        self._begin_event(len(hashes))
        for i in range(len(hashes)):
            segment = self._mappings[segment_of(hashes[i])]
            offset = self._meanings.find(segment, hashes[i], announcer)
            if offset < 0:
                unknown += 1
                continue
            span = segment.span_at(offset)
            self._add_holder(segment, offset, holder, new_copies)
            for j in range(span - last_blocks if 0 < last_blocks < span else 0, span - 1):
                segment = self._mappings[segment_of(part_name(hashes[i], j))]
                offset = self._meanings.find(segment, part_name(hashes[i], j), announcer)
                if offset >= 0:
                    self._add_holder(segment, offset, holder, new_copies)
        return unknown

    def remove(self, hashes: cython.ulonglong[::1], holder: cython.uint) -> int:
        """Take one copy of each of `hashes` from `holder`; return how many it did not hold."""
        unknown: cython.Py_ssize_t = 0
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        offset: cython.Py_ssize_t
        span: cython.Py_ssize_t
        segment: Segment
        if self.sets.wastes_memory():  # nothing else: an eviction now would make hashes unknown
            self.sets.collect()
        for i in range(len(hashes)):
            segment = self._mappings[segment_of(hashes[i])]
            offset = self._meanings.find(segment, hashes[i], holder)
            if offset < 0:
                unknown += 1
                continue
            span = segment.span_at(offset)
            self._remove_one(hashes[i], holder)
            for j in range(span - 1):
                self._remove_one(part_name(hashes[i], j), holder)
        return unknown

    def limit_copies(
        self,
        hashes: cython.ulonglong[::1],
        limits: cython.ulonglong[::1],
        holder: cython.uint,
    ) -> None:
        """Leave `holder` at most `limits[i]` copies of `hashes[i]`, for each `i`."""
        i: cython.Py_ssize_t
        copies: cython.ulonglong
        segment: Segment
        one = array("Q", [0])
        for i in range(min(len(hashes), len(limits))):
            segment = self._mappings[segment_of(hashes[i])]
            if self._meanings.find(segment, hashes[i], holder) < 0:
                continue
            one[0] = hashes[i]
            copies = 1 + self._copy_counts.extra_references(holder, hashes[i])
            while copies > limits[i]:
                self.remove(one, holder)
                copies -= 1

    def key_of(self, engine_hash: cython.ulonglong, announcer: cython.uint) -> int | None:
        """Return the key of the last block that `announcer` announced `engine_hash` for."""
        segment: Segment = self._mappings[segment_of(engine_hash)]
        offset: cython.Py_ssize_t = self._meanings.find(segment, engine_hash, announcer)
        if offset < 0:
            return None
        return segment.words[offset + 2]

    def _prefetch(
        self,
        segments: list,
        names: cython.p_ulonglong,
        count: cython.Py_ssize_t,
        scope: cython.ulonglong,
    ) -> cython.void:
        """Let the CPU fetch what the searches of `store` will read: it waits once, if at all."""
        i: cython.Py_ssize_t
        for i in range(count):
            hashed: cython.ulonglong = hash_of(names[i] ^ scope)
            segment: Segment = segments[cython.cast(cython.Py_ssize_t, hashed >> 56)]
            segment.prefetch(hashed)

    def _store_one(
        self,
        engine_hash: cython.ulonglong,
        key: cython.ulonglong,
        holder: cython.uint,
        announcer: cython.uint,
        span: cython.ushort,
        new_copies: cython.bint,
    ) -> cython.bint:
        """Let `announcer` announce that `engine_hash` means `key`, and `holder` hold the block.

        Returns False, and changes nothing, if the hash has too many meanings already.
        """
        hashed: cython.ulonglong = hash_of(engine_hash)
        segment: Segment = self._mappings[cython.cast(cython.Py_ssize_t, hashed >> 56)]
        offset: cython.Py_ssize_t = segment.find_hashed(engine_hash, hashed)
        if offset >= 0 and segment.words[offset + 2] != key:
            offset = self._meanings.find_key(segment, offset, key, announcer)
            if offset < 0:
                if not self._meanings.has_room:
                    return False
                self.mapping_count -= self._meanings.freed
        before: cython.uint = 0 if offset < 0 else segment.holder_set_at(offset)
        announced: cython.uint = self.sets.with_holder(before, announcer)
        after: cython.uint = self.sets.with_holder(announced, holder)
        if offset < 0:
            offset = self._insert(segment, engine_hash, after)
            segment.words[offset + 2] = key
            segment.words[offset + 1] |= cython.cast(cython.ulonglong, span) << 48
            self.mapping_count += 1
        else:
            segment.assign(offset, after, self.sets)
            segment.widen(offset, span)
            segment.touch(offset, self.ranks.epoch)
            if after == announced and new_copies:
                self._copy_counts.incref(holder, engine_hash)
        self._add_block_holder(key, holder, after != announced)
        return True

    def _add_holder(
        self,
        segment: Segment,
        offset: cython.Py_ssize_t,
        holder: cython.uint,
        new_copies: cython.bint,
    ) -> cython.int:
        """Let `holder` hold the block of the mapping at `offset`, in one more copy if it does."""
        before: cython.uint = segment.holder_set_at(offset)
        after: cython.uint = self.sets.with_holder(before, holder)
        if after != before:
            segment.assign(offset, after, self.sets)
        elif new_copies:
            self._copy_counts.incref(holder, segment.words[offset])
        segment.touch(offset, self.ranks.epoch)
        self._add_block_holder(segment.words[offset + 2], holder, after != before)
        return 0

    def _remove_one(self, engine_hash: cython.ulonglong, holder: cython.uint) -> cython.bint:
        """Take one copy of what `holder` holds under `engine_hash`; False if it holds nothing.

        The mapping stays for its announcers, even without any holder.
        """
        segment: Segment = self._mappings[segment_of(engine_hash)]
        offset: cython.Py_ssize_t = self._meanings.find(segment, engine_hash, holder)
        if offset < 0:
            return False
        if self._copy_counts.decref(holder, engine_hash):
            return True
        key: cython.ulonglong = segment.words[offset + 2]
        after: cython.uint = self.sets.without_holder(segment.holder_set_at(offset), holder)
        segment.assign(offset, after, self.sets)
        if after == 0:  # its announcers have retired
            self.mapping_count -= 1
        self._remove_block_holder(key, holder)
        return True

    def __repr__(self) -> str:
        return (
            f"<BlockTable {self.block_count:,} blocks, {self.mapping_count:,} mappings, "
            f"{self.sets.live:,} holder sets, {self.bytes_used:,} of {self.limit_bytes:,} bytes>"
        )


@cython.ccall
@cython.exceptval(check=False)
def part_name(engine_hash: cython.ulonglong, index: cython.ulonglong) -> cython.ulonglong:
    """Return the name of block `index` of an engine block of several; the last has the hash."""
    mixed: cython.ulonglong = engine_hash + (index + 1) * 0x632BE5AB
    if cython.compiled:
        return mixed ^ (mixed << 29)
    return (mixed ^ (mixed << 29)) & 0xFFFFFFFFFFFFFFFF
