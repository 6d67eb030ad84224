"""Counts what a listener refuses: calls before their method runs, and connections."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import Counter

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry


class ListenerRefusals:
    """`kvatlas_calls_refused_total` and `kvatlas_connections_refused_total`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter(
            "kvatlas_calls_refused",
            "Calls that were refused before their method ran, by listener and reason.",
            ["listener", "reason"],
            registry=registry,
        )
        self._connections = Counter(
            "kvatlas_connections_refused",
            "Connections that were not accepted, or closed for what their peer did or did not do, "
            "by listener and reason; with grpc.transport = http2.",
            ["listener", "reason"],
            registry=registry,
        )

    def counters(self, listener: str) -> tuple[Callable[[str], None], Callable[[str], None]]:
        """Return what counts a refused call, and a refused connection, given the reason."""
        return partial(_count, self._calls, listener), partial(_count, self._connections, listener)


def _count(counter: Counter, listener: str, reason: str) -> None:
    counter.labels(listener, reason).inc()
