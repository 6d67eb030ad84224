# cython: warn.unreachable=False, boundscheck=False, wraparound=False, initializedcheck=False
"""Interned holder sets: one number stands for each distinct set of holders.

Neighbouring blocks of a prompt are nearly always held by the same holders, so a few sets serve
many blocks, and equal numbers mean equal sets. Number 0 is the empty set.

A set is never changed. "Add this holder to the set of this block" is a transition from one set
number to another, and the pool remembers transitions: a store of a thousand blocks makes the same
one a thousand times. Each slot with a set number counts as one reference. Sets without references
stay, because the next event often needs them again, until `collect` drops all of them.
"""

from __future__ import annotations

from array import array
from typing import Any

import cython

_REMOVAL = cython.declare(cython.ulonglong, 0x80000000)  # marks a transition that removes
_SET_BYTES = 320  # an array, its key, its dictionary entry and one remembered transition


@cython.cclass
class HolderSets:
    """The pool of sets. A holder is a number below 2**31 that the block table gives.

    Attributes:
        holders: set number -> ascending `array('I')` of holders; empty for a free number.
        retired: holders that hold nothing any more, but may still be in sets.
        live: sets with references.
        bytes: an estimate of what the pool occupies.
    """

    def __init__(self) -> None:
        self.holders: list[array[int]] = [array("I")]
        self._numbers = {b"": 0}  # bytes of the ascending array -> set number
        self._transitions = {}  # set number << 32 | _REMOVAL or 0 | holder -> set number
        self._free = []
        self.retired = set()
        self._references = array("I", bytes(4 * 64))
        self.live = 0
        self.bytes = 0
        # A direct-mapped cache of additions in front of `_transitions`: two reads of C arrays in
        # place of a dictionary look-up with boxed integers. Target 0 means no entry: the outcome
        # of an addition is never the empty set.
        self._recent_transitions = array("Q", bytes(8 * 256))
        self._recent_targets = array("I", bytes(4 * 256))

    def with_holder(self, number: cython.uint, holder: cython.uint) -> cython.uint:
        """Return the set `number` with `holder` added; `number` itself if it is in it."""
        transition: cython.ulonglong = cython.cast(cython.ulonglong, number) << 32 | holder
        index: cython.Py_ssize_t = (number * 5 + holder) & 0xFF
        if self._recent_transitions[index] == transition and self._recent_targets[index] != 0:
            return self._recent_targets[index]
        target = self._transitions.get(transition)
        if target is None:
            holders = set(self.holders[number])
            holders.add(holder)
            target = self._transitions[transition] = self.intern(holders)
        self._recent_transitions[index] = transition
        self._recent_targets[index] = target
        return self._recent_targets[index]

    def without_holder(self, number: cython.uint, holder: cython.uint) -> cython.uint:
        """Return the set `number` with `holder` removed; `number` itself if it is not in it."""
        transition: cython.ulonglong = (
            cython.cast(cython.ulonglong, number) << 32 | _REMOVAL | holder
        )
        target = self._transitions.get(transition)
        if target is None:
            holders = set(self.holders[number])
            holders.discard(holder)
            target = self._transitions[transition] = self.intern(holders)
        return target

    def holds(self, number: cython.uint, holder: cython.uint) -> cython.bint:
        """Return whether `holder` is in the set `number`."""
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
        """Return the number of the set of `holders`, a new one for a set not seen before.

        The set has no reference yet: it must get one, or not be needed, before the next `collect`.
        """
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
        """Count a slot whose set changes from `before` to `after`; 0 stands for a free slot."""
        if before != 0:
            self._references[before] -= 1
            if self._references[before] == 0:
                self.live -= 1
        if after != 0:
            if self._references[after] == 0:
                self.live += 1
            self._references[after] += 1

    def collect(self) -> None:
        """Drop the sets without references.

        Their numbers will stand for other sets, so all remembered transitions go too. Call this
        only while no set number is on its way from `intern` to a slot.
        """
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
        """Return whether sets without references outnumber the others: time to `collect`."""
        return len(self._numbers) - 1 - self.live > max(4096, self.live)

    def forget_retired(self, holders: set[int]) -> None:
        """Take `holders`, which are in no referenced set any more, out of `retired`.

        Their numbers can be given out again, so no set and no transition may name them: hence
        the collection.
        """
        self.collect()
        self.retired -= holders

    def without_retired(self, number: int) -> int:
        """Return the set `number` without its retired holders."""
        return self.intern(set(self.holders[number]) - self.retired)

    # Snapshots

    def dump(self) -> dict[str, Any]:
        """Return the pool as `load` takes it."""
        return {
            "sizes": array("I", map(len, self.holders)).tobytes(),
            "holders": b"".join(holders.tobytes() for holders in self.holders),
            "references": bytes(self._references),
            "retired": list(self.retired),
        }

    def load(self, dumped: dict[str, Any]) -> None:
        """Replace the contents by a dumped pool. Transitions are learned again."""
        concatenated, start = array("I", dumped["holders"]), 0
        self.holders = []
        for size in array("I", dumped["sizes"]):
            self.holders.append(concatenated[start : start + size])
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
