"""Counts the calls that a listener refuses before their method runs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import Counter

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry


class RefusedCalls:
    """`kvatlas_calls_refused_total` by listener and reason."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._refused = Counter(
            "kvatlas_calls_refused",
            "Calls that were refused before their method ran, by listener and reason.",
            ["listener", "reason"],
            registry=registry,
        )

    def counter(self, listener: str) -> Callable[[str], None]:
        """A function that counts a refused call, given the reason."""
        return partial(self._count, listener)

    def _count(self, listener: str, reason: str) -> None:
        self._refused.labels(listener, reason).inc()
