# cython: warn.unreachable=False, boundscheck=False, wraparound=False, initializedcheck=False
"""Refcounts of what a holder holds more than once.

A holder set says only that a holder holds something, which is one reference. Further references
are rare, so nested dictionaries are compact enough for them.
"""

from __future__ import annotations

from array import array
from typing import Any

import cython


@cython.cclass
class Refcounts:
    """References beyond the first, by holder and name (an engine hash or a block key).

    Attributes:
        count: pairs of a holder and a name that have any.
    """

    def __init__(self) -> None:
        self.count = 0
        self._by_holder = {}

    def incref(self, holder: cython.uint, name: cython.ulonglong) -> cython.void:
        """Add a reference."""
        references = self._by_holder.setdefault(holder, {})
        if name not in references:
            self.count += 1
        references[name] = references.get(name, 0) + 1

    def decref(self, holder: cython.uint, name: cython.ulonglong) -> cython.bint:
        """Take a reference away; False if only the first one is left."""
        if self.count == 0:
            return False
        references = self._by_holder.get(holder)
        if references is None or name not in references:
            return False
        references[name] -= 1
        if references[name] == 0:
            del references[name]
            self.count -= 1
        return True

    def extra_references(self, holder: cython.uint, name: cython.ulonglong) -> cython.Py_ssize_t:
        """Return how many references there are beyond the first."""
        if self.count == 0:
            return 0
        return self._by_holder[holder].get(name, 0) if holder in self._by_holder else 0

    def forget(self, holder: cython.uint) -> cython.void:
        """Drop all references of a holder."""
        self.count -= len(self._by_holder.pop(holder, ()))

    def dump(self) -> list[Any]:
        """Return the references as `load` takes them."""
        return [
            (holder, array("Q", counts).tobytes(), array("Q", counts.values()).tobytes())
            for holder, counts in self._by_holder.items()
        ]

    def load(self, dumped: list[Any]) -> None:
        """Replace the references by dumped ones."""
        self._by_holder = {
            holder: dict(zip(array("Q", names), array("Q", counts), strict=True))
            for holder, names, counts in dumped
        }
        self.count = sum(map(len, self._by_holder.values()))
