"""What answers promised for routed requests, and what engines delivered."""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from indexer import Worker
    from service.routing.handles import Promise

_MOST_SOURCES = 16  # their names come from callers
_OTHER_SOURCES = "other"
_MOST_WORKERS = 16_384


class OutcomeLimits(NamedTuple):
    """When an engine delivers too little."""

    share: float
    """Of the promised tokens, how many may be missing; 1: any number."""
    outcomes: int
    """Over how many outcomes that is judged."""
    seconds: float
    """How long after a doubt there is no other one: each may lead to a replay."""


@dataclass(slots=True)
class DeliveredTokens:
    """What was promised of one worker, and delivered by it, since it was first reported."""

    outcomes: int = 0
    promised: int = 0
    """Reusable tokens of the answers."""
    delivered: int = 0
    """Tokens that the engine took from its cache."""
    missing: int = 0
    """Tokens that were promised and not delivered, summed up over requests."""
    by_source: Counter[str] = field(default_factory=Counter)
    """Delivered tokens by where the engine had them, as far as that was reported."""
    doubted_at: float = -math.inf
    """When it was last found to deliver too little."""
    recent: deque[tuple[int, int]] = field(default_factory=deque)
    """Promised and missing tokens of the last requests whose promise was exact."""

    def add(self, promise: Promise, cached: int, by_source: Mapping[str, int]) -> None:
        """Count one outcome."""
        missing = max(0, promise.reusable_tokens - cached)
        self.outcomes += 1
        self.promised += promise.reusable_tokens
        self.delivered += cached
        self.missing += missing
        for source, tokens in by_source.items():
            is_known = source in self.by_source or len(self.by_source) < _MOST_SOURCES
            self.by_source[source if is_known else _OTHER_SOURCES] += tokens
        if promise.is_exact and promise.reusable_tokens:
            self.recent.append((promise.reusable_tokens, missing))

    def delivers_too_little(self, limits: OutcomeLimits) -> bool:
        """Whether more than the allowed share is missing. Judged anew for the next outcomes."""
        if len(self.recent) < limits.outcomes:
            return False
        promised = sum(promised for promised, _ in self.recent)
        missing = sum(missing for _, missing in self.recent)
        if missing <= limits.share * promised:
            self.recent.popleft()
            return False
        self.recent.clear()
        return True


class Outcomes:
    """The outcomes of each worker."""

    def __init__(
        self,
        limits: OutcomeLimits,
        on_under_delivery: Callable[[Worker], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: on_under_delivery: told of a worker that delivers too little."""
        self._limits = limits
        self._on_under_delivery = on_under_delivery
        self._now = now
        self._by_worker: OrderedDict[tuple[Worker, str], DeliveredTokens] = OrderedDict()

    def add(
        self,
        worker: Worker,
        model: str,
        promise: Promise,
        cached: int,
        by_source: Mapping[str, int],
    ) -> None:
        """Count the outcome of one request."""
        delivered = self._by_worker.get((worker, model))
        if delivered is None:
            if len(self._by_worker) >= _MOST_WORKERS:  # those of pods that left long ago
                self._by_worker.popitem(last=False)
            delivered = self._by_worker[worker, model] = DeliveredTokens()
        delivered.add(promise, cached, by_source)
        if not delivered.delivers_too_little(self._limits):
            return
        now = self._now()
        if now - delivered.doubted_at >= self._limits.seconds:
            delivered.doubted_at = now
            self._on_under_delivery(worker)

    def of(self, worker: Worker, model: str) -> DeliveredTokens | None:
        """Return what is known of one worker; None if no outcome was reported."""
        return self._by_worker.get((worker, model))

    def all(self) -> Mapping[tuple[Worker, str], DeliveredTokens]:
        """Return what is known, by worker and model."""
        return self._by_worker
