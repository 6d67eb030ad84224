"""A histogram that costs little to observe: plain numbers until a scrape."""

from __future__ import annotations

import time
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.samples import Exemplar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.4, 1.0)


class Histogram:
    """How often values fell into each bucket."""

    __slots__ = ("_bounds", "_exemplars", "counts", "total")

    def __init__(self, bounds: Sequence[float] = _BUCKETS) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self._exemplars: dict[int, Exemplar] = {}  # by the bucket; the newest

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def add(self, other: Histogram) -> None:
        """Count the values of another histogram with the same buckets."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total
        self._exemplars.update(other._exemplars)

    def exemplify(self, value: float, labels: Mapping[str, str]) -> None:
        """Remember where a value that was counted comes from, in place of an earlier one."""
        bucket = bisect_left(self._bounds, value)
        self._exemplars[bucket] = Exemplar(dict(labels), value, time.time())

    @property
    def buckets(self) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
        """Upper bounds, and how many values are not above them, as Prometheus wants them.

        With an example of them each, if there is any; the text form of OpenMetrics has them.
        """
        bounds = [*map(str, self._bounds), "+Inf"]
        found = self._exemplars
        return [
            (bound, count, found[index]) if index in found else (bound, count)
            for index, (bound, count) in enumerate(
                zip(bounds, accumulate(self.counts), strict=True)
            )
        ]
