# cython: warn.unreachable=False, boundscheck=False, wraparound=False, initializedcheck=False
"""Holders and announcers of one block table: small numbers, and the counts of each."""

from __future__ import annotations

from array import array
from typing import Any

import cython

from indexer.kernel.segment import hash_of, name_of

_INITIAL_ROOM = 64
_MOST_DUMPED = 0xFFFF  # a stranger may announce a block more often; no engine has so many copies


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

    def is_empty(self, holder: cython.Py_ssize_t) -> cython.bint:
        """Return whether `holder` holds nothing, and has lost nothing to an eviction.

        An announcer is different: nothing counts what it has announced.
        """
        return not (self.announcer[holder] or self.held[holder] or self.evicted[holder])

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
        """Replace the columns by dumped ones, which must all be as long."""
        room = bytes(8 * _INITIAL_ROOM)  # `new` doubles the columns, which must not be empty
        self.scopes = array("Q", dumped["scopes"] + room)
        self.held = array("Q", dumped["held"] + room)
        self.evicted = array("Q", dumped["lost"] + room)
        self.announcer = array("B", dumped["announcer"] + room[:_INITIAL_ROOM])
        self.count = dumped["count"]
        self._free = list(dumped["free"])


@cython.cclass
class Refcounts:
    """References beyond the first, by holder and name (an engine hash or a block key).

    A holder set says only that a holder holds something, which is one reference. Further ones
    are rare, so nested dictionaries are compact enough for them. Their keys are hashed names:
    Python hashes integers to themselves, so chosen names could make dictionaries slow.

    Attributes:
        count: pairs of a holder and a name that have any.
    """

    def __init__(self) -> None:
        self.count = 0
        self._by_holder = {}

    def incref(self, holder: cython.uint, name: cython.ulonglong) -> cython.void:
        """Add a reference."""
        references = self._by_holder.setdefault(holder, {})
        hashed = hash_of(name)
        if hashed not in references:
            self.count += 1
        references[hashed] = references.get(hashed, 0) + 1

    def decref(self, holder: cython.uint, name: cython.ulonglong) -> cython.bint:
        """Take a reference away; False if only the first one is left."""
        if self.count == 0:
            return False
        references = self._by_holder.get(holder)
        hashed = hash_of(name)
        if references is None or hashed not in references:
            return False
        references[hashed] -= 1
        if references[hashed] == 0:
            del references[hashed]
            self.count -= 1
        return True

    def drop(self, holder: cython.uint, name: cython.ulonglong) -> cython.void:
        """Take all references but the first away."""
        if self.count == 0:
            return
        references = self._by_holder.get(holder)
        if references is not None and references.pop(hash_of(name), None) is not None:
            self.count -= 1

    def limit(
        self, holder: cython.uint, name: cython.ulonglong, most: cython.Py_ssize_t
    ) -> cython.void:
        """Leave at most `most` references beyond the first."""
        if most <= 0:
            self.drop(holder, name)
        elif self.extra_references(holder, name) > most:
            self._by_holder[holder][hash_of(name)] = most

    def extra_references(self, holder: cython.uint, name: cython.ulonglong) -> cython.Py_ssize_t:
        """Return how many references there are beyond the first."""
        if self.count == 0:
            return 0
        if holder not in self._by_holder:
            return 0
        return self._by_holder[holder].get(hash_of(name), 0)

    def forget(self, holder: cython.uint) -> cython.void:
        """Drop all references of a holder."""
        self.count -= len(self._by_holder.pop(holder, ()))

    def dump(self) -> list[Any]:
        """Return the references as `load` takes them."""
        return [
            (
                holder,
                array("Q", map(name_of, counts)).tobytes(),
                array("Q", [min(count, _MOST_DUMPED) for count in counts.values()]).tobytes(),
            )
            for holder, counts in self._by_holder.items()
        ]

    def load(self, dumped: list[Any]) -> None:
        """Replace the references by dumped ones."""
        self._by_holder = {
            holder: dict(zip(map(hash_of, array("Q", names)), array("Q", counts), strict=True))
            for holder, names, counts in dumped
        }
        self.count = sum(map(len, self._by_holder.values()))


def _doubled(values: array[int]) -> array[int]:
    longer = array(values.typecode, values)
    longer.frombytes(bytes(len(values) * values.itemsize))
    return longer
