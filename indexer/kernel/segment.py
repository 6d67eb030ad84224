# cython: warn.unreachable=False, boundscheck=False, wraparound=False, initializedcheck=False
"""One of the 256 segments of a hash map: open addressing with linear probing.

A map is divided into segments so that no call re-hashes more than a 256th of it: each segment
grows by itself, and by a quarter only, which keeps slots seven tenths full on average. Deletion
moves later slots back instead of leaving tombstones, so searches never slow down with age.

Engines name their blocks, and a stranger can choose names that a fixed hash function puts into one
place. So names are hashed with a random number of this process, which nothing outside shows.
"""

from __future__ import annotations

import secrets
from array import array
from typing import Any

import cython

from indexer.kernel.holder_sets import HolderSets

_SECRET = cython.declare(cython.ulonglong, secrets.randbits(64) | 1)
_GOLDEN = cython.declare(cython.ulonglong, 0x9E3779B97F4A7C15)
_LOW_32_BITS = cython.declare(cython.ulonglong, 0xFFFFFFFF)
_AGE_BITS = cython.declare(cython.ulonglong, 0x000000FF00000000)
_BELOW_SPAN = cython.declare(cython.ulonglong, 0x0000FFFFFFFFFFFF)
_MASK = 0xFFFFFFFFFFFFFFFF  # what C does by itself

_LEAST_SLOTS = cython.declare(cython.Py_ssize_t, 8)

_passed = cython.declare(cython.ulonglong, 0)


def passed_slots() -> int:
    """Return how many slots of other names searches have passed so far: a measure of cost.

    It counts for all tables of this process.
    """
    return _passed


@cython.ccall
@cython.exceptval(check=False)
def hash_of(name: cython.ulonglong) -> cython.ulonglong:
    """Return the hash of `name`, whose upper bits nobody can foresee who cannot read `_SECRET`.

    The first product alone would spread names in arithmetic progression badly for some secrets.
    Its upper half is folded into the lower one, and multiplied up again.
    """
    mixed: cython.ulonglong
    if cython.compiled:
        mixed = name * _SECRET
        return (mixed ^ (mixed >> 32)) * _GOLDEN
    mixed = (name * _SECRET) & _MASK
    return ((mixed ^ (mixed >> 32)) * _GOLDEN) & _MASK


def name_of(hashed: int) -> int:
    """Return the name whose `hash_of` is `hashed`."""
    mixed = hashed * pow(_GOLDEN, -1, _MASK + 1) & _MASK
    return (mixed ^ (mixed >> 32)) * pow(_SECRET, -1, _MASK + 1) & _MASK


@cython.ccall
@cython.exceptval(check=False)
def segment_of(name: cython.ulonglong) -> cython.Py_ssize_t:
    """Return which of a map's 256 segments `name` belongs to: the top 8 bits of its hash."""
    return hash_of(name) >> 56


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _home(hashed: cython.ulonglong, slots: cython.ulonglong) -> cython.Py_ssize_t:
    """Return the slot where the search for a name begins in a segment of `slots` slots."""
    # Multiplies 32 middle bits of the hash by `slots` and keeps the upper half: a slot number
    # without a division, for any number of slots. `segment_of` uses other bits.
    return (((hashed >> 24) & _LOW_32_BITS) * slots) >> 32


@cython.cclass
class Segment:
    """Slots of a hash map, each `width` words of one array.

    A slot is addressed by the `offset` of its first word. Several slots may have the same name.

        word 0    the name that is looked up: a block key or an engine hash; 0 in a free slot
        word 1    bits 0-31   the number of an interned holder set; 0 in a free slot
                  bits 32-39  the epoch in which the slot was last stored or looked up
                  bits 48-63  the span: how many of our blocks the engine hash stands for
        word 2    mappings only: the block key that the engine hash stands for

    A name may be 0, so a slot is free only if its holder set is 0 too.
    """

    def __init__(self, width: cython.Py_ssize_t) -> None:
        self.width = width
        self.has_keys = width > 2  # word 2 exists: the segment is one of mappings
        self.used = 0
        self.words = array("Q", bytes(8 * width * _LEAST_SLOTS))
        self.slots = _LEAST_SLOTS
        self.size = _LEAST_SLOTS * width
        self._missed = 0  # the name that a search has missed last,
        self._vacant = -1  # and the free slot where that search ended; -1 if it may not be free now

    def dump(self) -> dict[str, Any]:
        """Return the number of slots, that of used ones, and all words as bytes."""
        return {"slots": self.slots, "used": self.used, "words": bytes(self.words)}

    def find(self, name: cython.ulonglong) -> cython.Py_ssize_t:
        """Return the offset of the first slot of `name`, or -1."""
        return self._search(name, _home(hash_of(name), self.slots) * self.width)

    def find_hashed(self, name: cython.ulonglong, hashed: cython.ulonglong) -> cython.Py_ssize_t:
        """Do as `find`; hashed: `hash_of(name)`, for a caller that has it."""
        return self._search(name, _home(hashed, self.slots) * self.width)

    def find_next(self, name: cython.ulonglong, offset: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Return the offset of the next slot of `name` after `offset`, or -1."""
        return self._search(name, self._after(offset))

    def _search(self, name: cython.ulonglong, offset: cython.Py_ssize_t) -> cython.Py_ssize_t:
        global _passed
        candidate: cython.ulonglong
        while True:
            candidate = self.words[offset]
            if candidate == name and self.words[offset + 1] & _LOW_32_BITS != 0:
                return offset
            if candidate == 0 and self.words[offset + 1] & _LOW_32_BITS == 0:
                self._missed = name
                self._vacant = offset
                return -1  # a free slot ends every search
            _passed += 1
            offset += self.width
            if offset == self.size:
                offset = 0

    def _after(self, offset: cython.Py_ssize_t) -> cython.Py_ssize_t:
        offset += self.width
        return 0 if offset == self.size else offset

    def holder_set_at(self, offset: cython.Py_ssize_t) -> cython.uint:
        """Return the number of the slot's holder set; 0 if the slot is free."""
        return self.words[offset + 1] & _LOW_32_BITS

    def age_at(self, offset: cython.Py_ssize_t) -> cython.uint:
        """Return the epoch in which the slot was last stored or looked up, modulo 256."""
        return (self.words[offset + 1] >> 32) & 0xFF

    def span_at(self, offset: cython.Py_ssize_t) -> cython.uint:
        """Return how many of our blocks the slot's engine hash stands for."""
        return self.words[offset + 1] >> 48

    def widen(self, offset: cython.Py_ssize_t, span: cython.ulonglong) -> cython.void:
        """Raise the slot's span to at least `span` blocks."""
        if (self.words[offset + 1] >> 48) < span:
            self.words[offset + 1] = (self.words[offset + 1] & _BELOW_SPAN) | span << 48

    def assign(
        self, offset: cython.Py_ssize_t, number: cython.uint, sets: HolderSets
    ) -> cython.void:
        """Give a used slot another holder set of `sets`; the empty set frees the slot."""
        before: cython.uint = self.holder_set_at(offset)
        if number == before:
            return
        sets.move_reference(before, number)
        if number == 0:
            self.delete(offset)
        else:
            self.words[offset + 1] = (self.words[offset + 1] & ~_LOW_32_BITS) | number

    def touch(self, offset: cython.Py_ssize_t, epoch: cython.ulonglong) -> cython.void:
        """Mark the slot as stored or looked up in `epoch`."""
        self.words[offset + 1] = (self.words[offset + 1] & ~_AGE_BITS) | epoch << 32

    def prefetch(self, hashed: cython.ulonglong) -> cython.void:
        """Let the CPU fetch what a search reads first; hashed: `hash_of` the name.

        It does not wait for it, so that fetches of many names overlap.
        """
        offset: cython.Py_ssize_t = _home(hashed, self.slots) * self.width
        if cython.compiled:  # a C function, see the .pxd
            prefetch_lines(cython.address(self.words[0]), offset, self.size)  # type: ignore[name-defined]  # noqa: F821

    def insert(
        self, name: cython.ulonglong, number: cython.uint, epoch: cython.ulonglong
    ) -> cython.Py_ssize_t:
        """Use a free slot for `name`, with span 0, and return its offset.

        There must be a free slot: see `is_full`.
        """
        offset: cython.Py_ssize_t = self._vacant
        if offset < 0 or self._missed != name:  # nearly always it was searched for before
            offset = self._free_slot(name)
        self._vacant = -1
        self.words[offset] = name
        self.words[offset + 1] = number | epoch << 32
        self.used += 1
        return offset

    def _free_slot(self, name: cython.ulonglong) -> cython.Py_ssize_t:
        offset: cython.Py_ssize_t = _home(hash_of(name), self.slots) * self.width
        while self.words[offset] != 0 or self.words[offset + 1] & _LOW_32_BITS != 0:
            offset = self._after(offset)
        return offset

    def is_full(self) -> cython.bint:
        """Return whether the next insertion needs `grow` or evictions first.

        The limit is 13/16: beyond it linear probing degrades quickly.
        """
        return (self.used + 1) * 16 > self.slots * 13

    def growth(self) -> cython.Py_ssize_t:
        """Return by how many words `grow` would enlarge the segment."""
        return (self.slots // 4 + _LEAST_SLOTS) * self.width

    def grow(self) -> cython.void:
        """Move all slots to an array that is a quarter larger."""
        self._move_to(self.slots + self.slots // 4 + _LEAST_SLOTS)

    def reserve(self, used: cython.Py_ssize_t, most_bytes: cython.Py_ssize_t) -> None:
        """Make room for `used` slots, and the few more that some segments get by chance.

        It is left to `grow`, in small steps, if that takes more than `most_bytes` more.
        """
        slots: cython.Py_ssize_t = (used + 4 * int(used**0.5)) * 16 // 13 + _LEAST_SLOTS
        if slots > self.slots and 8 * self.width * (slots - self.slots) <= most_bytes:
            self._move_to(slots)

    def _move_to(self, slots: cython.Py_ssize_t) -> cython.void:
        before: cython.ulonglong[::1] = self.words
        old_size: cython.Py_ssize_t = self.size
        offset: cython.Py_ssize_t = 0
        new: cython.Py_ssize_t
        self._vacant = -1
        self.slots = slots
        self.size = slots * self.width
        self.words = array("Q", [0]) * self.size
        while offset < old_size:
            if before[offset + 1] & _LOW_32_BITS != 0:
                new = self._free_slot(before[offset])
                self.words[new] = before[offset]
                self.words[new + 1] = before[offset + 1]
                if self.has_keys:
                    self.words[new + 2] = before[offset + 2]
            offset += self.width

    def delete(self, offset: cython.Py_ssize_t) -> cython.void:
        """Free a slot. Another used slot may stand at `offset` afterwards.

        A search ends at a free slot, so a gap must not cut a slot off from its home. The slots
        after the gap, up to the next free one, are visited in order; one whose home is not
        between the gap and itself was pushed past the gap, and moves into it. It leaves a gap of
        its own, and so on. Slots only move towards where probing starts, so a caller that scans
        upwards and looks at `offset` again misses none. It may see one twice that has moved
        around the end of the array.
        """
        self._vacant = -1
        gap: cython.Py_ssize_t = offset
        home: cython.Py_ssize_t
        stays: cython.bint
        while True:
            offset = self._after(offset)
            if self.words[offset + 1] & _LOW_32_BITS == 0:
                break
            home = _home(hash_of(self.words[offset]), self.slots) * self.width
            # A slot stays if its home is in the circular interval (gap, offset].
            if gap <= offset:
                stays = gap < home <= offset
            else:  # the search has wrapped around the end of the array
                stays = home > gap or home <= offset
            if stays:
                continue
            self.words[gap] = self.words[offset]
            self.words[gap + 1] = self.words[offset + 1]
            if self.has_keys:
                self.words[gap + 2] = self.words[offset + 2]
            gap = offset
        self.words[gap] = 0
        self.words[gap + 1] = 0
        self.used -= 1
