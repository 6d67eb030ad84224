# cython: warn.unreachable=False, boundscheck=False, wraparound=False, initializedcheck=False
"""Interned sets of members: one number stands for each distinct set.

Number 0 is the empty set. The steps `with_holder` and `without_holder` are remembered, so that the
usual one costs a dictionary look-up at most. Every slot that carries a number counts as one
reference; sets without references are dropped in bulk by `collect`.
"""

from __future__ import annotations

from array import array
from typing import Any

import cython

_REMOVAL = cython.declare(cython.ulonglong, 0x80000000)  # tells the two kinds of step apart
_SET_BYTES = 320  # an array, its key, its dictionary entry and one remembered step


@cython.cclass
class HolderSets:
    """The pool of sets. A *member* is a number below 2**31 given by the block table.

    members: set number -> ascending `array('I')` of members, empty for a free number.
    dead: members that have been retired, but may still stand in sets.
    live: sets with references. bytes: estimate of what the pool occupies.
    """

    def __init__(self) -> None:
        self.holders: list[array[int]] = [array("I")]
        self._numbers = {b"": 0}
        self._transitions = {}
        self._free = []
        self.retired = set()
        self._references = array("I", bytes(4 * 64))
        self.live = 0
        self.bytes = 0
        self._recent_transitions = array("Q", bytes(8 * 256))
        self._recent_targets = array("I", bytes(4 * 256))

    def with_holder(self, number: cython.uint, holder: cython.uint) -> cython.uint:
        """The set `number` with `holder`: `number` itself if that is in it."""
        step: cython.ulonglong = cython.cast(cython.ulonglong, number) << 32 | holder
        place: cython.Py_ssize_t = (number * 5 + holder) & 0xFF
        if self._recent_transitions[place] == step and self._recent_targets[place] != 0:
            return self._recent_targets[place]
        known = self._transitions.get(step)
        if known is None:
            holders = set(self.holders[number])
            holders.add(holder)
            known = self._transitions[step] = self.intern(holders)
        self._recent_transitions[place] = step
        self._recent_targets[place] = known
        return self._recent_targets[place]

    def without_holder(self, number: cython.uint, holder: cython.uint) -> cython.uint:
        """The set `number` without `holder`: `number` itself if that is not in it."""
        step: cython.ulonglong = cython.cast(cython.ulonglong, number) << 32 | _REMOVAL | holder
        known = self._transitions.get(step)
        if known is None:
            holders = set(self.holders[number])
            holders.discard(holder)
            known = self._transitions[step] = self.intern(holders)
        return known

    def holds(self, number: cython.uint, holder: cython.uint) -> cython.bint:
        """Whether `holder` is in the set `number`."""
        holders: cython.uint[::1]
        i: cython.Py_ssize_t
        if number == 0:
            return False
        holders = self.holders[number]
        for i in range(len(holders)):
            if holders[i] == holder:
                return True
        return False

    def intern(self, holders: set) -> cython.uint:
        """The number of the set of `holders`."""
        ordered = array("I", sorted(holders))
        name = ordered.tobytes()
        number = self._numbers.get(name)
        if number is not None:
            return number
        if self._free:
            number = self._free.pop()
            self.holders[number] = ordered
        else:
            number = len(self.holders)
            self.holders.append(ordered)
            if number >= len(self._references):
                more = array("I", self._references)
                more.frombytes(bytes(4 * len(more)))
                self._references = more
        self._numbers[name] = number
        self.bytes += _SET_BYTES + 2 * len(name)
        return number

    def move_reference(self, before: cython.uint, after: cython.uint) -> cython.void:
        """A slot's set has changed from `before` to `after` (0: the slot was, or is now, free)."""
        if before != 0:
            self._references[before] -= 1
            if self._references[before] == 0:
                self.live -= 1
        if after != 0:
            if self._references[after] == 0:
                self.live += 1
            self._references[after] += 1

    def collect(self) -> None:
        """Drop the sets that no slot refers to, and with them every remembered step."""
        self._transitions.clear()
        self._recent_targets = array("I", bytes(4 * 256))
        for number in range(1, len(self.holders)):
            holders = self.holders[number]
            if len(holders) and self._references[number] == 0:
                name = holders.tobytes()
                del self._numbers[name]
                self.holders[number] = self.holders[0]
                self._free.append(number)
                self.bytes -= _SET_BYTES + 2 * len(name)

    def has_many_unused(self) -> bool:
        """Whether unreferenced sets outnumber the others: time to `collect`."""
        return len(self._numbers) - 1 - self.live > max(4096, self.live)

    def forget_retired(self, holders: set[int]) -> None:
        """`holders` are in no slot's set any more; their numbers may be given out again."""
        self.collect()
        self.retired -= holders

    def without_retired(self, number: int) -> int:
        """The set `number` less its dead members."""
        return self.intern(set(self.holders[number]) - self.retired)

    # Snapshots

    def dump(self) -> dict[str, Any]:
        """What `load` takes."""
        return {
            "sizes": array("I", map(len, self.holders)).tobytes(),
            "holders": b"".join(holders.tobytes() for holders in self.holders),
            "references": bytes(self._references),
            "retired": list(self.retired),
        }

    def load(self, dumped: dict[str, Any]) -> None:
        """Be as the pool that was dumped."""
        every, start = array("I", dumped["holders"]), 0
        self.holders = []
        for size in array("I", dumped["sizes"]):
            self.holders.append(every[start : start + size])
            start += size
        self._references = array("I", dumped["references"])
        self._numbers = {holders.tobytes(): n for n, holders in enumerate(self.holders)}
        self._numbers[b""] = 0
        self._free = [n for n, holders in enumerate(self.holders) if n and not holders]
        self.bytes = sum(_SET_BYTES + 2 * len(name) for name in self._numbers if name)
        self.live = sum(1 for count in self._references[1 : len(self.holders)] if count)
        self.retired = set(dumped["retired"])

    def __len__(self) -> int:
        return len(self._numbers) - 1
