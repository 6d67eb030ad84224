# cython: boundscheck=False, wraparound=False, initializedcheck=False, warn.unreachable=False
# cython: cdivision=True
"""Scores of a prefix walk: the weight of the best tier of each stretch, summed up."""

from __future__ import annotations

from array import array

import cython

_MAX_KEPT = cython.declare(cython.Py_ssize_t, 1 << 20)  # bytes of scratch space between walks


@cython.cclass
class TierScores:
    """The tiers in order of weight, and the best one of each stretch and worker.

    A score is the sum of one product per tier, in the order of the tiers. It is the same to the
    last bit however workers, holders and sets are numbered, so replicas agree on it.

    Attributes:
        tier_count: tiers that have a weight.
        weights: tier -> what a block in it adds to a score.
        same: tier -> the first tier of the same weight.
        order: the tiers, heaviest first, and those of the same weight in their own order.
        best: stretch * workers + worker -> the best tier of a stretch, as `same` names it. Valid
            only where the walk has set it.
    """

    def __init__(self) -> None:
        self.tier_count = 0
        self.best = array("B", bytes(64))
        self._given = array("d")

    def use(self, weights: array[float]) -> cython.bint:
        """Use these weights from now on; True if there is anything new about them.

        Weights never change, but the same array may have got longer since the last walk.
        """
        if weights is self._given and len(weights) == self.tier_count:
            return False
        i: cython.Py_ssize_t
        tier: cython.Py_ssize_t
        tier_count: cython.Py_ssize_t = len(weights)
        same: cython.uchar[::1] = array("B", range(tier_count))
        for i in range(tier_count):
            for tier in range(i):
                if weights[tier] == weights[i]:
                    same[i] = tier
                    break
        self.same = same
        self.order = array("B", sorted(range(tier_count), key=weights.__getitem__, reverse=True))
        # A copy: an array cannot grow while something looks at its memory.
        self.weights = array("d", weights)
        self._given = weights
        self._counts = array("q", bytes(8 * tier_count))
        self.tier_count = tier_count
        return True

    def reserve(self, cells: cython.Py_ssize_t) -> cython.void:
        """Make room for so many stretches times workers."""
        if cells > len(self.best):
            self.best = array("B", bytes(2 * cells))

    def release(self) -> cython.void:
        """Give back what an unusually long walk needed."""
        if len(self.best) > _MAX_KEPT:
            self.best = array("B", bytes(64))

    def score(
        self,
        ends: cython.uint[::1],
        worker: cython.Py_ssize_t,
        worker_count: cython.Py_ssize_t,
        last: cython.Py_ssize_t,
        tiers: cython.Py_ssize_t,
        ratio: cython.Py_ssize_t,
    ) -> cython.double:
        """Return the weighted sum of the blocks of `worker` before `last`.

        ends: where each stretch ends. tiers: how many of the first tiers anything is in. ratio:
        blocks that count as one, a divisor of `last`.
        """
        start: cython.Py_ssize_t = 0
        stretch: cython.Py_ssize_t = 0
        tier: cython.Py_ssize_t
        end: cython.Py_ssize_t
        score: cython.double = 0.0
        for tier in range(tiers):
            self._counts[tier] = 0
        while start < last:
            end = min(cython.cast(cython.Py_ssize_t, ends[stretch]), last)
            self._counts[self.best[stretch * worker_count + worker]] += end - start
            start = end
            stretch += 1
        for tier in range(tiers):
            if self._counts[tier]:
                score += self._counts[tier] / ratio * self.weights[tier]
        return score
