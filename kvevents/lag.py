"""How long events take from their engine to the index."""

from __future__ import annotations

from bisect import bisect_left


class EventLag:
    """A histogram of the seconds between the publication of a frame and its application.

    It compares an engine's clock with this host's: a negative difference counts as 0.

    Attributes:
        counts: frames by bucket; the last bucket has those beyond all bounds.
        total: the sum of all lags, in seconds.
    """

    BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)

    def __init__(self) -> None:
        self.counts = [0] * (len(self.BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one frame."""
        seconds = max(0.0, seconds)
        self.counts[bisect_left(self.BOUNDS, seconds)] += 1
        self.total += seconds
