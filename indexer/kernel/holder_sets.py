# cython: warn.unreachable=False, boundscheck=False, wraparound=False, initializedcheck=False
"""Interned holder sets: one number stands for each distinct set of holders.

Neighbouring blocks of a prompt are nearly always held by the same holders, so a few sets serve
many blocks, and equal numbers mean equal sets. Number 0 is the empty set.

A set is never changed. "Add this holder to the set of this block" is a transition from one set
number to another, and the pool remembers transitions: a store of a thousand blocks makes the same
one a thousand times. Each slot with a set number counts as one reference. Sets without references
stay, because the next event often needs them again, until `collect` drops all of them.

What a stranger's events cost here is bounded: a set that gets another holder loses its retired
ones, so that no set grows with the number of clears, and transitions are forgotten when there are
many more of them than sets.
"""

from __future__ import annotations

from array import array
from typing import Any

import cython

_REMOVAL = cython.declare(cython.ulonglong, 0x80000000)  # marks a transition that removes
# An array, its key, its dictionary entry and one remembered transition; without its holders, each
# of which is in both the array and the key.
_SET_BYTES = cython.declare(cython.Py_ssize_t, 320)
_HOLDER_BYTES = cython.declare(cython.Py_ssize_t, 8)
_FEW_UNUSED_BYTES = cython.declare(cython.Py_ssize_t, 16 << 20)
_FEW_TRANSITIONS = 65_536


@cython.cclass
class HolderSets:
    """The pool of sets. A holder is a number below 2**31 that the block table gives.

    Attributes:
        holders: set number -> ascending `array('I')` of holders; empty for a free number.
        retired: holders that hold nothing any more, but may still be in sets.
        live: sets with references.
        bytes: an estimate of what the pool occupies.
        live_bytes: the part of it that sets with references occupy.
        passed: holders of sets that new transitions have been worked out from: a measure of cost.
    """

    def __init__(self) -> None:
        self.holders: list[array[int]] = [array("I")]
        self._numbers = {b"": 0}  # bytes of the ascending array -> set number
        self._transitions = {}  # set number << 32 | _REMOVAL or 0 | holder -> set number
        self._free = []
        self.retired = set()
        self._references = array("I", bytes(4 * 64))
        self.live = 0
        self.bytes = self.live_bytes = 0
        self.passed = 0
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
            target = number
            if not self.holds(number, holder):
                holders = self._members(number)
                holders.add(holder)
                target = self.intern(holders)
            self._remember(transition, target)
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
            target = number
            if self.holds(number, holder):
                holders = self._members(number)
                holders.discard(holder)
                target = self.intern(holders)
            self._remember(transition, target)
        return target

    def _members(self, number: cython.uint) -> set:
        """Return the holders in the set `number` that have not retired."""
        holders = set(self.holders[number])
        self.passed += len(holders)
        return holders - self.retired if self.retired else holders

    def _remember(self, transition: cython.ulonglong, target: cython.uint) -> cython.void:
        if len(self._transitions) > 4 * len(self._numbers) + _FEW_TRANSITIONS:
            self._transitions.clear()
        self._transitions[transition] = target

    def holds(self, number: cython.uint, holder: cython.uint) -> cython.bint:
        """Return whether `holder` is in the set `number`."""
        holders: cython.uint[::1]
        low: cython.Py_ssize_t = 0
        high: cython.Py_ssize_t
        middle: cython.Py_ssize_t
        if number == 0:
            return False
        holders = self.holders[number]
        high = len(holders)
        while low < high:
            middle = (low + high) >> 1
            if holders[middle] < holder:
                low = middle + 1
            else:
                high = middle
        return low < len(holders) and holders[low] == holder

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
        self.bytes += self._bytes_of(number)
        return number

    def _bytes_of(self, number: cython.uint) -> cython.Py_ssize_t:
        return _SET_BYTES + _HOLDER_BYTES * len(self.holders[number])

    def move_reference(self, before: cython.uint, after: cython.uint) -> cython.void:
        """Count a slot whose set changes from `before` to `after`; 0 stands for a free slot."""
        if before != 0:
            self._references[before] -= 1
            if self._references[before] == 0:
                self.live -= 1
                self.live_bytes -= self._bytes_of(before)
        if after != 0:
            if self._references[after] == 0:
                self.live += 1
                self.live_bytes += self._bytes_of(after)
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
                self.bytes -= self._bytes_of(number)
                del self._numbers[holders.tobytes()]
                self.holders[number] = self.holders[0]
                self._free.append(number)

    def has_many_unused(self) -> cython.bint:
        """Return whether sets without references outnumber the others: time to `collect`."""
        return len(self._numbers) - 1 - self.live > max(4096, self.live)

    def wastes_memory(self) -> cython.bint:
        """Return whether sets without references occupy more than the others, and not little."""
        return self.bytes - self.live_bytes > max(_FEW_UNUSED_BYTES, self.live_bytes)

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
        """Replace the contents by a dumped pool, whose sets get references when slots are loaded.

        Transitions are learned again.
        """
        concatenated, start = array("I", dumped["holders"]), 0
        self.holders = []
        for size in array("I", dumped["sizes"]):
            self.holders.append(concatenated[start : start + size])
            start += size
        self._references = array("I", bytes(4 * max(64, len(self.holders))))
        self._numbers = {holders.tobytes(): n for n, holders in enumerate(self.holders)}
        self._numbers[b""] = 0
        self._free = [n for n, holders in enumerate(self.holders) if n and not holders]
        self.bytes = sum(self._bytes_of(n) for n, holders in enumerate(self.holders) if holders)
        self.live = self.live_bytes = 0
        self.retired = set(dumped["retired"])

    def __len__(self) -> int:
        return len(self._numbers) - 1
