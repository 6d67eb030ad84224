"""How long a text of some size is likely to take a thread."""

from __future__ import annotations

_SMALLEST_BYTES = 4096  # what a small text costs does not depend on its size
_KEPT = 0.9  # of what was learned, at each new text


class Pace:
    """Learns the seconds that a byte takes, from the texts of the recent past."""

    def __init__(self) -> None:
        self._bytes, self._seconds = 100_000.0, 0.01  # a guess that the first texts replace

    def learn(self, size: int, seconds: float) -> None:
        """Take in that a text of `size` bytes took `seconds`."""
        self._bytes = _KEPT * self._bytes + max(size, _SMALLEST_BYTES)
        self._seconds = _KEPT * self._seconds + seconds

    def seconds(self, size: int) -> float:
        """Return the seconds that a text of `size` bytes is likely to take."""
        return max(size, _SMALLEST_BYTES) * self._seconds / self._bytes
