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

from indexer.holder_sets import HolderSets
from indexer.segment import Segment, segment_of

_BLOCK_WORDS = 2
_MAPPING_WORDS = 3
_SEGMENTS = cython.declare(cython.Py_ssize_t, 256)
_EXTRA_BYTES = cython.declare(
    cython.Py_ssize_t, 160
)  # one int -> int entry of a nested dictionary, with its two ints
_EPOCHS_PER_TABLE = cython.declare(cython.Py_ssize_t, 32)  # how finely the age of a slot is told


@cython.cclass
class BlockTable:
    """Blocks, mappings and members, bounded by bytes.

    limit_bytes: above it no segment grows; its longest unused slots are evicted and counted.
    count_copies: whether a hash announced again means one more physical copy (vLLM) or the same
        copy announced again (set semantics).
    slot_bytes, block_count, mapping_count, copy_count: what is there now.
    evicted_blocks, evicted_mappings: how many were evicted for the memory bound so far.
    losers: members that have lost their first block so; the caller empties it.
    """

    def __init__(self, limit_bytes: int, count_copies: bool = True) -> None:
        self.limit_bytes = limit_bytes
        self.count_copies = count_copies
        self.sets = HolderSets()
        self._blocks = [Segment(_BLOCK_WORDS) for _ in range(_SEGMENTS)]
        self._mappings = [Segment(_MAPPING_WORDS) for _ in range(_SEGMENTS)]
        self.slot_bytes = 8 * sum(segment.size for segment in self._blocks + self._mappings)
        self.block_count = self.mapping_count = self.copy_count = 0
        self.evicted_blocks = self.evicted_mappings = 0
        self._scopes = array("Q", bytes(8 * 64))
        self._held = array("Q", bytes(8 * 64))
        self._lost = array("Q", bytes(8 * 64))
        self.losers = []
        self._knowing = array("B", bytes(64))
        self.members = 0
        self._free_members = []
        self._copies = {}
        self._shared = {}
        self._sweeping = set()
        self._hand = 0
        self._epoch = 0
        self._stores = 0

    # Members

    def new_member(self, scope: cython.ulonglong, knowing: cython.bint = False) -> int:
        """A number for a holder whose blocks live in `scope`, or for a worker's knowledge."""
        if self._free_members:
            member = self._free_members.pop()
        else:
            member = self.members
            self.members += 1
            if member >= len(self._scopes):
                self._scopes = _doubled(array("Q", self._scopes))
                self._held = _doubled(array("Q", self._held))
                self._lost = _doubled(array("Q", self._lost))
                self._knowing = _doubled(array("B", self._knowing))
        self._scopes[member] = scope
        self._held[member] = 0
        self._lost[member] = 0
        self._knowing[member] = knowing
        return member

    def retire(self, member: int) -> None:
        """Forget all that `member` holds or knows, in a time independent of how much that is.

        Scores are right at once if the caller no longer counts the member; `sweep` frees the rest.
        """
        self.sets.dead.add(member)
        self.copy_count -= len(self._copies.pop(member, ())) + len(self._shared.pop(member, ()))

    def held_by(self, member: cython.Py_ssize_t) -> int:
        """How many blocks `member` holds."""
        return self._held[member]

    def lost_by(self, member: cython.Py_ssize_t) -> int:
        """How many blocks `member` held that were evicted for the memory bound."""
        return self._lost[member]

    # Events

    def store(
        self,
        hashes: cython.ulonglong[::1],
        keys: cython.ulonglong[::1],
        member: cython.uint,
        known: cython.uint,
    ) -> None:
        """`member` holds the blocks `keys` under `hashes`; the knowing member `known` learns so.

        There may be `span` times as many keys as hashes: then each hash stands for `span` blocks.
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
        self._tick(len(keys))
        self._warm(hashes, keys, member)
        for i in range(count):
            for j in range(span - 1):
                self._store_one(_part(hashes[i], j), keys[i * span + j], member, known, 1)
            self._store_one(hashes[i], keys[(i + 1) * span - 1], member, known, span)

    def store_known(
        self, hashes: cython.ulonglong[::1], member: cython.uint, known: cython.uint
    ) -> int:
        """`member` holds what `known` learned for `hashes`; returns how many it did not."""
        unknown: cython.Py_ssize_t = 0
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        at: cython.Py_ssize_t
        span: cython.Py_ssize_t
        segment: Segment
        self._tick(len(hashes))
        for i in range(len(hashes)):
            segment = self._mappings[segment_of(hashes[i])]
            at = self._mapping_of(segment, hashes[i], known)
            if at < 0:
                unknown += 1
                continue
            span = segment.span_at(at)
            self._add_holder(segment, at, member)
            for j in range(span - 1):
                segment = self._mappings[segment_of(_part(hashes[i], j))]
                at = self._mapping_of(segment, _part(hashes[i], j), known)
                if at >= 0:
                    self._add_holder(segment, at, member)
        return unknown

    def remove(self, hashes: cython.ulonglong[::1], member: cython.uint) -> int:
        """`member` has lost one copy of each of `hashes`; returns how many it did not hold."""
        unknown: cython.Py_ssize_t = 0
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        at: cython.Py_ssize_t
        span: cython.Py_ssize_t
        segment: Segment
        for i in range(len(hashes)):
            segment = self._mappings[segment_of(hashes[i])]
            at = self._mapping_of(segment, hashes[i], member)
            if at < 0:
                unknown += 1
                continue
            span = segment.span_at(at)
            self._remove_one(hashes[i], member)
            for j in range(span - 1):
                self._remove_one(_part(hashes[i], j), member)
        return unknown

    def key_of(self, engine_hash: cython.ulonglong, known: cython.uint) -> int | None:
        """The key of the (last) block that `engine_hash` stands for, if `known` learned it."""
        segment: Segment = self._mappings[segment_of(engine_hash)]
        at: cython.Py_ssize_t = self._mapping_of(segment, engine_hash, known)
        if at < 0:
            return None
        return segment.words[at + 2]

    def _warm(
        self, hashes: cython.ulonglong[::1], keys: cython.ulonglong[::1], member: cython.uint
    ) -> cython.ulonglong:
        """Ask for the memory all at once that `store` will need piece by piece."""
        i: cython.Py_ssize_t
        name: cython.ulonglong
        scope: cython.ulonglong = self._scopes[member]
        segment: Segment
        read: cython.ulonglong = 0
        for i in range(len(hashes)):
            segment = self._mappings[segment_of(hashes[i])]
            read ^= segment.warm(hashes[i])
        for i in range(len(keys)):
            name = keys[i] ^ scope
            segment = self._blocks[segment_of(name)]
            read ^= segment.warm(name)
        return read

    def _store_one(
        self,
        engine_hash: cython.ulonglong,
        key: cython.ulonglong,
        member: cython.uint,
        known: cython.uint,
        span: cython.ushort,
    ) -> cython.void:
        segment: Segment = self._mappings[segment_of(engine_hash)]
        at: cython.Py_ssize_t = segment.find(engine_hash)
        while at >= 0 and segment.words[at + 2] != key:
            at = segment.find_next(engine_hash, at)
        if at < 0:
            at = self._insert(segment, engine_hash, self.sets.with_member(0, known))
            segment.words[at + 2] = key
            segment.words[at + 1] |= cython.cast(cython.ulonglong, span) << 48
            self.mapping_count += 1
        else:
            self._set(segment, at, self.sets.with_member(segment.number_at(at), known))
        self._add_holder(segment, at, member)

    def _add_holder(
        self, segment: Segment, at: cython.Py_ssize_t, member: cython.uint
    ) -> cython.void:
        """One more copy for `member` of what the mapping at `at` stands for."""
        before: cython.uint = segment.number_at(at)
        after: cython.uint = self.sets.with_member(before, member)
        if after != before:
            self._set(segment, at, after)
        elif self.count_copies:
            self._count_up(self._copies, member, segment.words[at])
        segment.touch(at, self._epoch)
        self._hold(segment.words[at + 2], member, after != before)

    def _remove_one(self, engine_hash: cython.ulonglong, member: cython.uint) -> cython.bint:
        segment: Segment = self._mappings[segment_of(engine_hash)]
        at: cython.Py_ssize_t = self._mapping_of(segment, engine_hash, member)
        if at < 0:
            return False
        if self._copies and self._count_down(self._copies, member, engine_hash):
            return True
        key: cython.ulonglong = segment.words[at + 2]
        self._set(segment, at, self.sets.without_member(segment.number_at(at), member))
        self._let_go(key, member)
        return True

    def _mapping_of(
        self, segment: Segment, engine_hash: cython.ulonglong, member: cython.uint
    ) -> cython.Py_ssize_t:
        """Where the mapping of `engine_hash` known to or held by `member` is, or -1."""
        at: cython.Py_ssize_t = segment.find(engine_hash)
        while at >= 0 and not self.sets.holds(segment.number_at(at), member):
            at = segment.find_next(engine_hash, at)
        return at

    def _hold(
        self, key: cython.ulonglong, member: cython.uint, new_hash: cython.bint
    ) -> cython.bint:
        """`member` holds the block `key`; `new_hash`: under a hash it did not hold it by before."""
        name: cython.ulonglong = key ^ self._scopes[member]
        segment: Segment = self._blocks[segment_of(name)]
        at: cython.Py_ssize_t = segment.find(name)
        before: cython.uint
        after: cython.uint
        if at < 0:
            at = self._insert(segment, name, self.sets.with_member(0, member))
            self.block_count += 1
            self._held[member] += 1
            return True
        segment.touch(at, self._epoch)
        before = segment.number_at(at)
        after = self.sets.with_member(before, member)
        if after != before:
            self._set(segment, at, after)
            self._held[member] += 1
        elif new_hash:
            self._count_up(self._shared, member, key)
        return after != before

    def _let_go(self, key: cython.ulonglong, member: cython.uint) -> cython.void:
        """`member` no longer holds the block `key` under one of its hashes."""
        if self._shared and self._count_down(self._shared, member, key):
            return
        name: cython.ulonglong = key ^ self._scopes[member]
        segment: Segment = self._blocks[segment_of(name)]
        at: cython.Py_ssize_t = segment.find(name)
        if at < 0:
            return
        before: cython.uint = segment.number_at(at)
        after: cython.uint = self.sets.without_member(before, member)
        if after == before:
            return
        self._held[member] -= 1
        self._set(segment, at, after)
        if after == 0:
            self.block_count -= 1

    def _count_up(self, counts: dict, member: cython.uint, name: cython.ulonglong):
        of_member = counts.setdefault(member, {})
        if name not in of_member:
            self.copy_count += 1
        of_member[name] = of_member.get(name, 0) + 1

    def _count_down(self, counts: dict, member: cython.uint, name: cython.ulonglong) -> bool:
        of_member = counts.get(member)
        if of_member is None or name not in of_member:
            return False
        of_member[name] -= 1
        if of_member[name] == 0:
            del of_member[name]
            self.copy_count -= 1
        return True

    # Slots

    def _insert(
        self, segment: Segment, name: cython.ulonglong, number: cython.uint
    ) -> cython.Py_ssize_t:
        if segment.is_full():
            self._make_room(segment)
        self.sets.moved(0, number)
        return segment.insert(name, number, self._epoch)

    def _set(self, segment: Segment, at: cython.Py_ssize_t, number: cython.uint) -> cython.void:
        """Give a slot another set; a slot with the empty set is free."""
        before: cython.uint = segment.number_at(at)
        if number == before:
            return
        self.sets.moved(before, number)
        if number == 0:
            segment.delete(at)
        else:
            segment.renumber(at, number)

    # The memory bound

    @property
    def bytes_used(self) -> int:
        """What blocks, mappings, sets and copies occupy, in bytes."""
        return self.slot_bytes + self.sets.bytes + self.copy_count * _EXTRA_BYTES

    def _tick(self, stored: cython.Py_ssize_t) -> cython.void:
        """Age the table by `stored` blocks; called before an event, when no set is in limbo."""
        self._stores += stored
        if self._stores * _EPOCHS_PER_TABLE > self.mapping_count + 4096:
            self._stores = 0
            self._epoch = (self._epoch + 1) & 0xFF
            if self.sets.crowded():
                self.sets.collect()

    def _make_room(self, segment: Segment) -> cython.void:
        more: cython.Py_ssize_t = 8 * segment.growth()
        if self.bytes_used + more <= self.limit_bytes:
            segment.grow()
            self.slot_bytes += more
            return
        oldest = self._ages_to_evict(segment)
        at: cython.Py_ssize_t = 0
        while at < segment.size:
            if segment.number_at(at) != 0 and self._rank(segment, at) >= oldest:
                self._drop(segment, at)  # another may have moved in: look at the slot again
            else:
                at += segment.width

    def _rank(self, segment: Segment, at: cython.Py_ssize_t) -> cython.int:
        """How far a slot is up the list of those to evict: its age in epochs, 256 if unheld."""
        age: cython.int = (self._epoch - segment.age_at(at)) & 0xFF
        if segment.width == _MAPPING_WORDS:
            if not self._is_held(segment.number_at(at)):
                return 256
            if age > 0 and self._asked_lately(segment.words[at + 2], segment.number_at(at)):
                return 0
        return age

    def _ages_to_evict(self, segment: Segment) -> int:
        """The least rank of the slots to evict, so that at least a sixteenth of them goes."""
        counts = [0] * 257
        at: cython.Py_ssize_t
        for at in range(0, segment.size, segment.width):
            if segment.number_at(at) != 0:
                counts[self._rank(segment, at)] += 1
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
        dead = self.sets.dead
        return any(not self._knowing[m] and m not in dead for m in self.sets.members[number])

    def _asked_lately(self, key: cython.ulonglong, number: cython.uint) -> cython.bint:
        """Whether the block of a mapping was asked for or stored in the last few epochs."""
        first: cython.uint = self.sets.members[number][0]
        name: cython.ulonglong = key ^ self._scopes[first]
        segment: Segment = self._blocks[segment_of(name)]
        at: cython.Py_ssize_t = segment.find(name)
        age: cython.int
        if at < 0:
            return False
        age = (self._epoch - segment.age_at(at)) & 0xFF
        return age < _EPOCHS_PER_TABLE // 4

    def _drop(self, segment: Segment, at: cython.Py_ssize_t) -> cython.void:
        """Evict a slot; its holders lose the block: nothing is claimed that is not known."""
        number: cython.uint = segment.number_at(at)
        name: cython.ulonglong = segment.words[at]
        key: cython.ulonglong = segment.words[at + 2] if segment.width == _MAPPING_WORDS else 0
        dead = self.sets.dead
        self._set(segment, at, 0)
        for member in self.sets.members[number]:
            if self._knowing[member] or member in dead:
                continue
            if self._lost[member] == 0:
                self.losers.append(member)
            self._lost[member] += 1
            if not segment.width == _MAPPING_WORDS:
                self._held[member] -= 1
                continue
            while self._count_down(self._copies, member, name):
                pass
            self._let_go(key, member)
        if segment.width == _MAPPING_WORDS:
            self.mapping_count -= 1
            self.evicted_mappings += 1
        else:
            self.block_count -= 1
            self.evicted_blocks += 1

    # Tidying up

    def sweep(self, segments: int) -> bool:
        """Clear retired members out of the next `segments` segments of both maps.

        Returns whether there is more to do. A pass over all 256 segments gives the numbers of the
        members retired before it began free again.
        """
        dead = self.sets.dead
        if not dead:
            return False
        if self._hand == 0:
            self._sweeping = set(dead)
        for _ in range(min(segments, _SEGMENTS - self._hand)):
            self.block_count -= self._sweep_segment(self._blocks[self._hand])
            self.mapping_count -= self._sweep_segment(self._mappings[self._hand])
            self._hand += 1
        if self._hand == _SEGMENTS:
            self._hand = 0
            self.sets.forget_dead(self._sweeping)
            self._free_members.extend(self._sweeping)
        return bool(dead)

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
                clean = cleaned[number] = self.sets.without_dead(number)
            self._set(segment, at, clean)
            if clean != 0:
                at += segment.width
        return before - segment.used

    # Requests

    def sets_of(self, keys: cython.ulonglong[::1], scope: cython.ulonglong) -> array[int]:
        """The set numbers of the leading blocks of `keys`, up to the first nobody holds.

        Marks the blocks as asked for. An `array('I')` of at most `len(keys)` numbers.
        """
        count: cython.Py_ssize_t = len(keys)
        found = array("I", bytes(4 * count)) if count else array("I")
        i: cython.Py_ssize_t = 0
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
            if at < 0:
                break
            out[i] = segment.number_at(at)
            if segment.age_at(at) != epoch:
                segment.touch(at, epoch)
            i += 1
        return found[:i] if i < count else found

    def __repr__(self) -> str:
        return (
            f"<BlockTable {self.block_count:,} blocks, {self.mapping_count:,} mappings, "
            f"{self.sets.live:,} holder sets, {self.bytes_used:,} of {self.limit_bytes:,} bytes>"
        )


def _doubled(values: array[int]) -> array[int]:
    longer = array(values.typecode, values)
    longer.frombytes(bytes(len(values) * values.itemsize))
    return longer


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _part(engine_hash: cython.ulonglong, index: cython.ulonglong) -> cython.ulonglong:
    """The name under which the block `index` of an engine block of several of ours is mapped."""
    mixed: cython.ulonglong = engine_hash + (index + 1) * 0x632BE5AB
    if cython.compiled:
        return mixed ^ (mixed << 29)
    return (mixed ^ (mixed << 29)) & 0xFFFFFFFFFFFFFFFF
