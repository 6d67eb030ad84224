# cython: warn.unreachable=False, boundscheck=False, wraparound=False, initializedcheck=False
"""The block table: which holders hold which block, and which engine hash means which block.

Compiled by Cython where a C compiler is at hand; the same source runs as plain Python elsewhere.

Two hash maps share one layout (`Segment`) and one pool of interned sets (`HolderSets`):

    blocks    block key (mixed with its scope)  -> set of members that hold the block
    mappings  (engine hash, block key)          -> set of members that hold it under this hash,
                                                   and of members that *know* what it means

A *member* is a small number for one holder, or for a worker's knowledge of engine hashes: an
engine hash must outlive the copies it was announced for (offload tiers announce bare hashes
later), so a worker's knowing member stays in a mapping's set when its holders have left it. It
also keeps engine hashes opaque per worker: a hash resolves only for those who announced it.

Neighbouring blocks of a prompt are nearly always held by the same members. So a block's value is
the number of an interned set: adding a member is a remembered step from one number to another, a
prefix walk is a run-length scan, and retiring a member touches neither blocks nor sets (`sweep`
tidies up in slices later).

No lock: everything here is called from one thread, the event loop's.
"""

from __future__ import annotations

from array import array

import cython

from indexer.kernel.segment import Segment, segment_of
from indexer.kernel.table_storage import TableStorage


@cython.cclass
class BlockTable(TableStorage):
    """Blocks, mappings and members, bounded by bytes; see `TableStorage` for what it is made of."""

    # Members

    def new_holder(self, scope: cython.ulonglong, announcer: cython.bint = False) -> int:
        """A number for a holder whose blocks live in `scope`, or for a worker's knowledge."""
        return self._holders.new(scope, announcer)

    def retire(self, holder: int) -> None:
        """Forget all that `holder` holds or knows, in a time independent of how much that is.

        Scores are right at once if the caller no longer counts the member; `sweep` frees the rest.
        """
        self.sets.retired.add(holder)
        self._copy_counts.forget(holder)
        self._hash_counts.forget(holder)

    def held_by(self, holder: cython.Py_ssize_t) -> int:
        """How many blocks `holder` holds."""
        return self._holders.held[holder]

    def lost_by(self, holder: cython.Py_ssize_t) -> int:
        """How many blocks `holder` held that were evicted for the memory bound."""
        return self._holders.lost[holder]

    # Events

    def store(
        self,
        hashes: cython.ulonglong[::1],
        keys: cython.ulonglong[::1],
        holder: cython.uint,
        announcer: cython.uint,
        new_copies: cython.bint = True,
    ) -> None:
        """`holder` holds the blocks `keys` under `hashes`; the knowing member `announcer` learns so.

        There may be `span` times as many keys as hashes: then each hash stands for `span` blocks.
        new_copies: whether what is held already has one more copy now.
        """
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        count: cython.Py_ssize_t = len(hashes)
        span: cython.Py_ssize_t
        if count == 0:
            return
        span = len(keys) // count
        if span * count != len(keys) or span < 1 or span > 0xFFFF:
            raise ValueError(f"{len(keys)} block keys do not spread over {count} engine hashes")
        new_copies = new_copies and self.count_copies
        self._advance_epoch(len(keys))
        self._prefetch(hashes, keys, holder)
        for i in range(count):
            for j in range(span - 1):
                self._store_one(
                    part_name(hashes[i], j), keys[i * span + j], holder, announcer, 1, new_copies
                )
            self._store_one(
                hashes[i], keys[(i + 1) * span - 1], holder, announcer, span, new_copies
            )

    def store_known(
        self,
        hashes: cython.ulonglong[::1],
        holder: cython.uint,
        announcer: cython.uint,
        new_copies: cython.bint = True,
        most: cython.Py_ssize_t = 0,
    ) -> int:
        """`holder` holds what `announcer` learned for `hashes`; returns how many it did not.

        most: of the blocks that a hash stands for it holds the last so many; 0 for all.
        """
        unknown: cython.Py_ssize_t = 0
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        at: cython.Py_ssize_t
        span: cython.Py_ssize_t
        segment: Segment
        new_copies = new_copies and self.count_copies
        self._advance_epoch(len(hashes))
        for i in range(len(hashes)):
            segment = self._mappings[segment_of(hashes[i])]
            at = self._find_mapping(segment, hashes[i], announcer)
            if at < 0:
                unknown += 1
                continue
            span = segment.span_at(at)
            self._add_holder(segment, at, holder, new_copies)
            for j in range(span - most if 0 < most < span else 0, span - 1):
                segment = self._mappings[segment_of(part_name(hashes[i], j))]
                at = self._find_mapping(segment, part_name(hashes[i], j), announcer)
                if at >= 0:
                    self._add_holder(segment, at, holder, new_copies)
        return unknown

    def remove(self, hashes: cython.ulonglong[::1], holder: cython.uint) -> int:
        """`holder` has lost one copy of each of `hashes`; returns how many it did not hold."""
        unknown: cython.Py_ssize_t = 0
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        at: cython.Py_ssize_t
        span: cython.Py_ssize_t
        segment: Segment
        for i in range(len(hashes)):
            segment = self._mappings[segment_of(hashes[i])]
            at = self._find_mapping(segment, hashes[i], holder)
            if at < 0:
                unknown += 1
                continue
            span = segment.span_at(at)
            self._remove_one(hashes[i], holder)
            for j in range(span - 1):
                self._remove_one(part_name(hashes[i], j), holder)
        return unknown

    def limit_copies(
        self,
        hashes: cython.ulonglong[::1],
        most: cython.ulonglong[::1],
        holder: cython.uint,
    ) -> None:
        """`holder` has at most so many copies of each of `hashes`."""
        i: cython.Py_ssize_t
        copies: cython.ulonglong
        segment: Segment
        one = array("Q", [0])
        for i in range(min(len(hashes), len(most))):
            segment = self._mappings[segment_of(hashes[i])]
            if self._find_mapping(segment, hashes[i], holder) < 0:
                continue
            one[0] = hashes[i]
            copies = 1 + self._copy_counts.extra_references(holder, hashes[i])
            while copies > most[i]:
                self.remove(one, holder)
                copies -= 1

    def key_of(self, engine_hash: cython.ulonglong, announcer: cython.uint) -> int | None:
        """The key of the (last) block that `engine_hash` stands for, if `announcer` learned it."""
        segment: Segment = self._mappings[segment_of(engine_hash)]
        at: cython.Py_ssize_t = self._find_mapping(segment, engine_hash, announcer)
        if at < 0:
            return None
        return segment.words[at + 2]

    def _prefetch(
        self, hashes: cython.ulonglong[::1], keys: cython.ulonglong[::1], holder: cython.uint
    ) -> cython.ulonglong:
        """Ask for the memory all at once that `store` will need piece by piece."""
        i: cython.Py_ssize_t
        name: cython.ulonglong
        scope: cython.ulonglong = self._holders.scopes[holder]
        segment: Segment
        read: cython.ulonglong = 0
        for i in range(len(hashes)):
            segment = self._mappings[segment_of(hashes[i])]
            read ^= segment.prefetch(hashes[i])
        for i in range(len(keys)):
            name = keys[i] ^ scope
            segment = self._blocks[segment_of(name)]
            read ^= segment.prefetch(name)
        return read

    def _store_one(
        self,
        engine_hash: cython.ulonglong,
        key: cython.ulonglong,
        holder: cython.uint,
        announcer: cython.uint,
        span: cython.ushort,
        new_copies: cython.bint,
    ) -> cython.void:
        segment: Segment = self._mappings[segment_of(engine_hash)]
        at: cython.Py_ssize_t = segment.find(engine_hash)
        while at >= 0 and segment.words[at + 2] != key:
            at = segment.find_next(engine_hash, at)
        if at < 0:
            at = self._insert(segment, engine_hash, self.sets.with_holder(0, announcer))
            segment.words[at + 2] = key
            segment.words[at + 1] |= cython.cast(cython.ulonglong, span) << 48
            self.mapping_count += 1
        else:
            self._set(segment, at, self.sets.with_holder(segment.number_at(at), announcer))
            segment.widen(at, span)
        self._add_holder(segment, at, holder, new_copies)

    def _add_holder(
        self,
        segment: Segment,
        at: cython.Py_ssize_t,
        holder: cython.uint,
        new_copies: cython.bint,
    ) -> cython.void:
        """`holder` has what the mapping at `at` stands for, in a copy more if it had it before."""
        before: cython.uint = segment.number_at(at)
        after: cython.uint = self.sets.with_holder(before, holder)
        if after != before:
            self._set(segment, at, after)
        elif new_copies:
            self._copy_counts.incref(holder, segment.words[at])
        segment.touch(at, self._epoch)
        self._add_block_holder(segment.words[at + 2], holder, after != before)

    def _remove_one(self, engine_hash: cython.ulonglong, holder: cython.uint) -> cython.bint:
        segment: Segment = self._mappings[segment_of(engine_hash)]
        at: cython.Py_ssize_t = self._find_mapping(segment, engine_hash, holder)
        if at < 0:
            return False
        if self._copy_counts.decref(holder, engine_hash):
            return True
        key: cython.ulonglong = segment.words[at + 2]
        self._set(segment, at, self.sets.without_holder(segment.number_at(at), holder))
        self._remove_block_holder(key, holder)
        return True

    def _find_mapping(
        self, segment: Segment, engine_hash: cython.ulonglong, holder: cython.uint
    ) -> cython.Py_ssize_t:
        """Where the mapping of `engine_hash` known to or held by `holder` is, or -1."""
        at: cython.Py_ssize_t = segment.find(engine_hash)
        while at >= 0 and not self.sets.holds(segment.number_at(at), holder):
            at = segment.find_next(engine_hash, at)
        return at

    def _add_block_holder(
        self, key: cython.ulonglong, holder: cython.uint, new_hash: cython.bint
    ) -> cython.bint:
        """`holder` holds the block `key`; `new_hash`: under a hash it did not hold it by before."""
        name: cython.ulonglong = key ^ self._holders.scopes[holder]
        segment: Segment = self._blocks[segment_of(name)]
        at: cython.Py_ssize_t = segment.find(name)
        before: cython.uint
        after: cython.uint
        if at < 0:
            at = self._insert(segment, name, self.sets.with_holder(0, holder))
            self.block_count += 1
            self._holders.held[holder] += 1
            return True
        segment.touch(at, self._epoch)
        before = segment.number_at(at)
        after = self.sets.with_holder(before, holder)
        if after != before:
            self._set(segment, at, after)
            self._holders.held[holder] += 1
        elif new_hash:
            self._hash_counts.incref(holder, key)
        return after != before

    # Requests

    def sets_of(
        self,
        keys: cython.ulonglong[::1],
        scope: cython.ulonglong,
        gap: cython.Py_ssize_t = 1,
    ) -> array[int]:
        """The set numbers of the leading blocks of `keys`, up to `gap` that nobody holds in a row.

        Marks the blocks as asked for. An `array('I')` of at most `len(keys)` numbers.
        """
        count: cython.Py_ssize_t = len(keys)
        found = array("I", bytes(4 * count)) if count else array("I")
        i: cython.Py_ssize_t = 0
        missing: cython.Py_ssize_t = 0
        name: cython.ulonglong
        at: cython.Py_ssize_t
        segment: Segment
        epoch: cython.uchar = self._epoch
        if count == 0:
            return found
        out: cython.uint[::1] = found
        while i < count:
            name = keys[i] ^ scope
            segment = self._blocks[segment_of(name)]
            at = segment.find(name)
            i += 1
            if at < 0:
                missing += 1
                if missing == gap:
                    break
                continue
            missing = 0
            out[i - 1] = segment.number_at(at)
            if segment.age_at(at) != epoch:
                segment.touch(at, epoch)
        return found[: i - missing] if missing else found

    def __repr__(self) -> str:
        return (
            f"<BlockTable {self.block_count:,} blocks, {self.mapping_count:,} mappings, "
            f"{self.sets.live:,} holder sets, {self.bytes_used:,} of {self.limit_bytes:,} bytes>"
        )


@cython.ccall
@cython.exceptval(check=False)
def part_name(engine_hash: cython.ulonglong, index: cython.ulonglong) -> cython.ulonglong:
    """The name under which the block `index` of an engine block of several of ours is mapped."""
    mixed: cython.ulonglong = engine_hash + (index + 1) * 0x632BE5AB
    if cython.compiled:
        return mixed ^ (mixed << 29)
    return (mixed ^ (mixed << 29)) & 0xFFFFFFFFFFFFFFFF
