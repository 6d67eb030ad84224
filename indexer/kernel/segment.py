# cython: warn.unreachable=False, boundscheck=False, wraparound=False, initializedcheck=False
"""A segment: one part of a hash map, small enough that growing it stalls nobody.

Open addressing with linear probing, deletion by moving back, growth by a quarter, so that the
slots of a map are seven tenths full on average. The map's 256 segments grow one by one; no
call ever re-hashes more than one of them.
"""

from __future__ import annotations

from array import array
from typing import Any

import cython

_GOLDEN = cython.declare(cython.ulonglong, 0x9E3779B97F4A7C15)
_LOW_32_BITS = cython.declare(cython.ulonglong, 0xFFFFFFFF)
_AGE_BITS = cython.declare(cython.ulonglong, 0x000000FF00000000)
_BELOW_SPAN = cython.declare(cython.ulonglong, 0x0000FFFFFFFFFFFF)
_MASK = 0xFFFFFFFFFFFFFFFF  # what C does by itself

_LEAST_SLOTS = cython.declare(cython.Py_ssize_t, 8)


@cython.ccall
@cython.exceptval(check=False)
def segment_of(name: cython.ulonglong) -> cython.Py_ssize_t:
    """Which of a map's 256 segments `name` belongs to."""
    if cython.compiled:
        return (name * _GOLDEN) >> 56
    return ((name * _GOLDEN) & _MASK) >> 56


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _home(name: cython.ulonglong, slots: cython.ulonglong) -> cython.Py_ssize_t:
    """The slot where the search for `name` begins in a segment of so many slots."""
    mixed: cython.ulonglong = name * _GOLDEN
    return (((mixed >> 24) & _LOW_32_BITS) * slots) >> 32


@cython.cclass
class Segment:
    """Slots of a hash map, each `width` words of one array; `at` is the offset of a slot's first.

    word 0: the name that is looked up (block key or engine hash), 0 in a free slot.
    word 1: the number of an interned holder set (32 bits, 0 in a free slot), the age (8 bits: the
        epoch in which the slot was last stored or asked for), the span (16 bits: how many of our
        blocks the engine's block spans).
    word 2: mappings only, the block key the engine hash stands for.
    """

    def __init__(self, width: cython.Py_ssize_t) -> None:
        self.width = width
        self.used = 0
        self.words = array("Q", bytes(8 * width * _LEAST_SLOTS))
        self.slots = _LEAST_SLOTS
        self.size = _LEAST_SLOTS * width

    def dump(self) -> dict[str, Any]:
        """What `load` takes."""
        return {"slots": self.slots, "used": self.used, "words": bytes(self.words)}

    def load(self, dumped: dict[str, Any]) -> None:
        """Be as the segment that was dumped. Raises ValueError if that was of another shape."""
        words = array("Q", dumped["words"])
        if len(words) != dumped["slots"] * self.width or not 0 <= dumped["used"] < dumped["slots"]:
            raise ValueError("a segment has as many words as its slots need")
        self.words = words
        self.slots, self.used = dumped["slots"], dumped["used"]
        self.size = len(words)

    def find(self, name: cython.ulonglong) -> cython.Py_ssize_t:
        """Where the first slot of `name` is, or -1."""
        return self._search(name, _home(name, self.slots) * self.width)

    def find_next(self, name: cython.ulonglong, at: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Where the next slot of `name` after `at` is, or -1."""
        return self._search(name, self._after(at))

    def _search(self, name: cython.ulonglong, at: cython.Py_ssize_t) -> cython.Py_ssize_t:
        here: cython.ulonglong
        while True:
            here = self.words[at]
            if here == name and self.words[at + 1] & _LOW_32_BITS != 0:
                return at
            if here == 0 and self.words[at + 1] & _LOW_32_BITS == 0:
                return -1
            at += self.width
            if at == self.size:
                at = 0

    def _after(self, at: cython.Py_ssize_t) -> cython.Py_ssize_t:
        at += self.width
        return 0 if at == self.size else at

    def number_at(self, at: cython.Py_ssize_t) -> cython.uint:
        """The number of the slot's holder set."""
        return self.words[at + 1] & _LOW_32_BITS

    def age_at(self, at: cython.Py_ssize_t) -> cython.uint:
        """The epoch in which the slot was last stored or asked for, modulo 256."""
        return (self.words[at + 1] >> 32) & 0xFF

    def span_at(self, at: cython.Py_ssize_t) -> cython.uint:
        """How many of our blocks the slot's engine hash stands for."""
        return self.words[at + 1] >> 48

    def widen(self, at: cython.Py_ssize_t, span: cython.ulonglong) -> cython.void:
        """The slot's engine hash stands for at least so many of our blocks."""
        if (self.words[at + 1] >> 48) < span:
            self.words[at + 1] = (self.words[at + 1] & _BELOW_SPAN) | span << 48

    def renumber(self, at: cython.Py_ssize_t, number: cython.uint) -> cython.void:
        """Give a slot another, non-empty set."""
        self.words[at + 1] = (self.words[at + 1] & ~_LOW_32_BITS) | number

    def touch(self, at: cython.Py_ssize_t, epoch: cython.ulonglong) -> cython.void:
        """The slot was stored or asked for in `epoch`."""
        self.words[at + 1] = (self.words[at + 1] & ~_AGE_BITS) | epoch << 32

    def prefetch(self, name: cython.ulonglong) -> cython.ulonglong:
        """Read the word a search for `name` begins with, so that it is near when it is needed."""
        return self.words[_home(name, self.slots) * self.width]

    def insert(
        self, name: cython.ulonglong, number: cython.uint, epoch: cython.ulonglong
    ) -> cython.Py_ssize_t:
        """A new slot for `name`, with span 0; see `is_full`. Returns where it is."""
        at: cython.Py_ssize_t = self._free_slot(name)
        self.words[at] = name
        self.words[at + 1] = number | epoch << 32
        self.used += 1
        return at

    def _free_slot(self, name: cython.ulonglong) -> cython.Py_ssize_t:
        at: cython.Py_ssize_t = _home(name, self.slots) * self.width
        while self.words[at] != 0 or self.words[at + 1] & _LOW_32_BITS != 0:
            at = self._after(at)
        return at

    def is_full(self) -> cython.bint:
        """Whether the next insertion must be preceded by `grow` or by evictions."""
        return (self.used + 1) * 16 > self.slots * 13

    def growth(self) -> cython.Py_ssize_t:
        """By how many words `grow` would enlarge the segment."""
        return (self.slots // 4 + _LEAST_SLOTS) * self.width

    def grow(self) -> cython.void:
        """Move to an array a quarter larger."""
        before: cython.ulonglong[::1] = self.words
        old_size: cython.Py_ssize_t = self.size
        at: cython.Py_ssize_t = 0
        new: cython.Py_ssize_t
        self.size = old_size + self.growth()
        self.slots += self.slots // 4 + _LEAST_SLOTS
        self.words = array("Q", bytes(8 * self.size))
        while at < old_size:
            if before[at + 1] & _LOW_32_BITS != 0:
                new = self._free_slot(before[at])
                self.words[new] = before[at]
                self.words[new + 1] = before[at + 1]
                if self.width > 2:
                    self.words[new + 2] = before[at + 2]
            at += self.width

    def delete(self, at: cython.Py_ssize_t) -> cython.void:
        """Free a slot, moving back what had been pushed past it; another may stand there then."""
        gap: cython.Py_ssize_t = at
        home: cython.Py_ssize_t
        stays: cython.bint
        while True:
            at = self._after(at)
            if self.words[at + 1] & _LOW_32_BITS == 0:
                break
            home = _home(self.words[at], self.slots) * self.width
            if gap <= at:
                stays = gap < home <= at
            else:
                stays = home > gap or home <= at
            if stays:
                continue
            self.words[gap] = self.words[at]
            self.words[gap + 1] = self.words[at + 1]
            if self.width > 2:
                self.words[gap + 2] = self.words[at + 2]
            gap = at
        self.words[gap] = 0
        self.words[gap + 1] = 0
        self.used -= 1
