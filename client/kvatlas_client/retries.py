"""How often calls are repeated, and after which pauses."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import grpc

_MOST_ATTEMPTS = 5  # gRPC makes no more, whatever is asked for
_LEAST_PAUSE = 0.005  # calls that gRPC's core repeats after about a millisecond may hang
_SPREAD = 0.2  # of a pause, so that clients that failed together do not come back together


@dataclass(frozen=True, slots=True)
class Retry:
    """Repeats calls that failed as UNAVAILABLE, within their deadlines.

    Every method may be repeated: done twice it has the effect of once. Each pause is twice the one
    before, up to `longest_seconds`, and varies by a fifth.

    Raises ValueError if a number is out of its range.
    """

    attempts: int = 4
    """Of a call, with the first one; 1: none is repeated; at most 5."""
    first_seconds: float = 0.01
    """The pause before the second attempt."""
    longest_seconds: float = 1.0
    """No pause is longer. The pauses of a stream that reconnects have this bound too."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 1 <= self.attempts <= _MOST_ATTEMPTS:
            raise ValueError(f"attempts: {self.attempts} is not between 1 and {_MOST_ATTEMPTS}")
        if not _LEAST_PAUSE <= self.first_seconds <= self.longest_seconds:
            raise ValueError(
                f"first_seconds: {self.first_seconds} is not between {_LEAST_PAUSE} and"
                f" longest_seconds, {self.longest_seconds}"
            )

    def policy(self) -> dict[str, Any] | None:
        """Return the retry policy of gRPC's service configuration; None for no retries."""
        if self.attempts == 1:
            return None
        return {
            "maxAttempts": self.attempts,
            "initialBackoff": f"{self.first_seconds:.3f}s",
            "maxBackoff": f"{self.longest_seconds:.3f}s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }


DEFAULT_RETRY = Retry()
"""What is done unless something else is asked for."""


LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)
"""Ends of a stream after which it is opened again. INTERNAL is what gRPC makes of a stream that is
reset, and of one that ends while a message is being written."""


class Backoff:
    """The pauses of a stream between two attempts to connect."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._next = retry.first_seconds

    def reset(self) -> None:
        """An attempt has succeeded: the next pause is the first one again."""
        self._next = self._retry.first_seconds

    def pause(self) -> float:
        """Return the seconds until the next attempt; each pause is about twice the one before."""
        pause = self._next
        self._next = min(2 * pause, self._retry.longest_seconds)
        return pause * random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311 - no secret
