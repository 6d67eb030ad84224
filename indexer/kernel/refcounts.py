# cython: warn.unreachable=False, boundscheck=False, wraparound=False, initializedcheck=False
"""Copies beyond the first, which sets cannot tell: rare, so dictionaries will do."""

from __future__ import annotations

from array import array
from typing import Any

import cython


@cython.cclass
class Refcounts:
    """How many times more than once a member holds something, by name.

    count: how many pairs of a member and a name there are.
    """

    def __init__(self) -> None:
        self.count = 0
        self._of = {}

    def incref(self, holder: cython.uint, name: cython.ulonglong) -> cython.void:
        """One more."""
        of_member = self._of.setdefault(holder, {})
        if name not in of_member:
            self.count += 1
        of_member[name] = of_member.get(name, 0) + 1

    def decref(self, holder: cython.uint, name: cython.ulonglong) -> cython.bint:
        """One less; False if there was but one."""
        if self.count == 0:
            return False
        of_member = self._of.get(holder)
        if of_member is None or name not in of_member:
            return False
        of_member[name] -= 1
        if of_member[name] == 0:
            del of_member[name]
            self.count -= 1
        return True

    def extra_references(self, holder: cython.uint, name: cython.ulonglong) -> cython.Py_ssize_t:
        """How many."""
        if self.count == 0:
            return 0
        return self._of[holder].get(name, 0) if holder in self._of else 0

    def forget(self, holder: cython.uint) -> cython.void:
        """The member has none any more."""
        self.count -= len(self._of.pop(holder, ()))

    def dump(self) -> list[Any]:
        """What `load` takes."""
        return [
            (holder, array("Q", counts).tobytes(), array("Q", counts.values()).tobytes())
            for holder, counts in self._of.items()
        ]

    def load(self, dumped: list[Any]) -> None:
        """Be as the copies that were dumped."""
        self._of = {
            holder: dict(zip(array("Q", names), array("Q", counts), strict=True))
            for holder, names, counts in dumped
        }
        self.count = sum(map(len, self._of.values()))
