"""Logs what happens to pods, in so many lines of each and no more: publishers cause them."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import structlog

_BURST = 50.0  # lines
_LINES_PER_SECOND = 1.0
_REMEMBERED = 8192  # pods


@dataclass(slots=True)
class _Allowance:
    lines: float
    counted_at: float
    dropped: int = 0


class LimitedLog:
    """A log of many pods. A line that follows dropped ones says how many there were."""

    def __init__(
        self,
        log: structlog.stdlib.BoundLogger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._clock = clock
        self._allowances: OrderedDict[str, _Allowance] = OrderedDict()

    def info(self, event: str, *, pod: str, **values: Any) -> None:
        """Log an event of a pod, unless it has had too many."""
        now = self._clock()
        allowance = self._allowances.setdefault(pod, _Allowance(_BURST, now))
        self._allowances.move_to_end(pod)
        if len(self._allowances) > _REMEMBERED:
            self._allowances.popitem(last=False)
        gained = _LINES_PER_SECOND * (now - allowance.counted_at)
        allowance.lines = min(_BURST, allowance.lines + gained)
        allowance.counted_at = now
        if allowance.lines < 1.0:
            allowance.dropped += 1
            return
        allowance.lines -= 1.0
        if allowance.dropped:
            values["lines_dropped"], allowance.dropped = allowance.dropped, 0
        self._log.info(event, pod=pod, **values)
