"""How long tests wait: until a condition holds, or to show that something takes little time."""

from __future__ import annotations

import time

DEADLINE_SECONDS = 60.0
"""How long a test waits for a condition before it fails: long, as a busy machine is slow."""

_ROUNDS = 20
_IDLE_SECONDS = 0.04


def stretched(seconds: float) -> float:
    """So many seconds of an idle machine, in seconds of this one as busy as it is now.

    Measured by short sleeps and short computations in turn, which a busy machine delays.
    """
    start = time.perf_counter()
    for _ in range(_ROUNDS):
        time.sleep(0.001)
        sum(range(30_000))
    slowness = (time.perf_counter() - start) / _IDLE_SECONDS
    return seconds if slowness < 1.5 else min(DEADLINE_SECONDS, 4 * slowness * seconds)
