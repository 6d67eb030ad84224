# cython: warn.unreachable=False, boundscheck=False, wraparound=False, initializedcheck=False
"""Holders and announcers of one block table: small numbers, and the counts of each."""

from __future__ import annotations

from array import array
from typing import Any

import cython

_INITIAL_ROOM = 64


@cython.cclass
class Holders:
    """Columns indexed by holder number.

    Attributes:
        scopes: mixed into the keys of the holder's blocks, see `indexer.scheme.model_scope`.
        held: blocks that the holder holds now.
        evicted: blocks that the holder held when they were evicted for the memory bound.
        announcer: 1 for an announcer, 0 for a holder of blocks.
        count: numbers in use or free; the next number that was never used.
    """

    def __init__(self) -> None:
        self.scopes = array("Q", bytes(8 * _INITIAL_ROOM))
        self.held = array("Q", bytes(8 * _INITIAL_ROOM))
        self.evicted = array("Q", bytes(8 * _INITIAL_ROOM))
        self.announcer = array("B", bytes(_INITIAL_ROOM))
        self.count = 0
        self._free = []

    def new(self, scope: cython.ulonglong, announcer: cython.bint) -> int:
        """Return a number that is not in use, with all counts at zero."""
        if self._free:
            holder = self._free.pop()
        else:
            holder = self.count
            self.count += 1
            if holder >= len(self.scopes):
                self.scopes = _doubled(array("Q", self.scopes))
                self.held = _doubled(array("Q", self.held))
                self.evicted = _doubled(array("Q", self.evicted))
                self.announcer = _doubled(array("B", self.announcer))
        self.scopes[holder] = scope
        self.held[holder] = 0
        self.evicted[holder] = 0
        self.announcer[holder] = announcer
        return holder

    def free(self, holders: set[int]) -> None:
        """Let `new` give these numbers out again. No holder set may contain them any more."""
        self._free.extend(holders)

    def dump(self) -> dict[str, Any]:
        """Return the columns as `load` takes them."""
        return {
            "scopes": bytes(self.scopes),
            "held": bytes(self.held),
            "lost": bytes(self.evicted),
            "announcer": bytes(self.announcer),
            "count": self.count,
            "free": self._free,
        }

    def load(self, dumped: dict[str, Any]) -> None:
        """Replace the columns by dumped ones."""
        self.scopes = array("Q", dumped["scopes"])
        self.held = array("Q", dumped["held"])
        self.evicted = array("Q", dumped["lost"])
        self.announcer = array("B", dumped["announcer"])
        self.count = dumped["count"]
        self._free = list(dumped["free"])


@cython.cclass
class Refcounts:
    """References beyond the first, by holder and name (an engine hash or a block key).

    A holder set says only that a holder holds something, which is one reference. Further ones
    are rare, so nested dictionaries are compact enough for them.

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


def _doubled(values: array[int]) -> array[int]:
    longer = array(values.typecode, values)
    longer.frombytes(bytes(len(values) * values.itemsize))
    return longer
