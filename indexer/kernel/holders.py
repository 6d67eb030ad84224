# cython: warn.unreachable=False, boundscheck=False, wraparound=False, initializedcheck=False
"""Members of holder sets: small numbers for holders, and for workers' knowledge of hashes."""

from __future__ import annotations

from array import array
from typing import Any

import cython

_FIRST = 64


@cython.cclass
class Holders:
    """What is kept of each member, by its number.

    scopes: mixed into the keys of its blocks. held: how many blocks it holds. lost: how many it
    held that were evicted. knowing: whether it stands for knowledge. count: numbers ever given.
    """

    def __init__(self) -> None:
        self.scopes = array("Q", bytes(8 * _FIRST))
        self.held = array("Q", bytes(8 * _FIRST))
        self.lost = array("Q", bytes(8 * _FIRST))
        self.announcer = array("B", bytes(_FIRST))
        self.count = 0
        self._free = []

    def new(self, scope: cython.ulonglong, announcer: cython.bint) -> int:
        """A number that is not in use."""
        if self._free:
            holder = self._free.pop()
        else:
            holder = self.count
            self.count += 1
            if holder >= len(self.scopes):
                self.scopes = _doubled(array("Q", self.scopes))
                self.held = _doubled(array("Q", self.held))
                self.lost = _doubled(array("Q", self.lost))
                self.announcer = _doubled(array("B", self.announcer))
        self.scopes[holder] = scope
        self.held[holder] = 0
        self.lost[holder] = 0
        self.announcer[holder] = announcer
        return holder

    def free(self, holders: set[int]) -> None:
        """These numbers are in no set any more."""
        self._free.extend(holders)

    def dump(self) -> dict[str, Any]:
        """What `load` takes."""
        return {
            "scopes": bytes(self.scopes),
            "held": bytes(self.held),
            "lost": bytes(self.lost),
            "announcer": bytes(self.announcer),
            "count": self.count,
            "free": self._free,
        }

    def load(self, dumped: dict[str, Any]) -> None:
        """Be as the members that were dumped."""
        self.scopes = array("Q", dumped["scopes"])
        self.held = array("Q", dumped["held"])
        self.lost = array("Q", dumped["lost"])
        self.announcer = array("B", dumped["announcer"])
        self.count = dumped["count"]
        self._free = list(dumped["free"])


def _doubled(values: array[int]) -> array[int]:
    longer = array(values.typecode, values)
    longer.frombytes(bytes(len(values) * values.itemsize))
    return longer
