"""Which workers may join: names come off the wire, and anybody can invent more of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from indexer import Worker
    from kvevents.stream import FleetLimits, StreamRegistry, WorkerStream

_LONGEST_NAME = 512  # characters of a pod or a model
_SCAN_SECONDS = 1.0  # at least so long between two searches for pods that have gone


class AdmissionError(ValueError):
    """A worker may not join; `reason` is one of a few words, for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Admission:
    """Admits workers within limits. Configured pods and those of a snapshot join without it.

    Where there are too many pods, a new one takes the place of the one that has been gone longest.

    Args:
        registry: the workers that have joined.
        limits: how many may join.
        forget: removes the stream of a worker that has gone.
    """

    def __init__(
        self,
        registry: StreamRegistry,
        limits: FleetLimits,
        forget: Callable[[WorkerStream], None],
    ) -> None:
        self._registry = registry
        self._limits = limits
        self._forget = forget
        self._next_scan = 0.0

    def check(self, worker: Worker, model: str, connection: int) -> None:
        """Raise AdmissionError unless a worker may join that speaks through `connection`."""
        registry, limits = self._registry, self._limits
        for name in (worker.pod, model):
            if len(name) > _LONGEST_NAME:
                raise AdmissionError(
                    "name_too_long", f"{name[:40]!r}... has more than {_LONGEST_NAME} characters"
                )
        if worker.rank >= limits.ranks:
            raise AdmissionError(
                "too_many_ranks",
                f"pod {worker.pod!r} has a rank {worker.rank}: events.ranks is {limits.ranks}",
            )
        if registry.connections.count_users(connection) >= limits.connection_workers:
            raise AdmissionError(
                "too_many_workers_of_connection",
                f"{worker.pod!r} is refused: events.connection_workers is "
                f"{limits.connection_workers}",
            )
        if registry.count_of_model(model) == 0 and registry.model_count >= limits.models:
            raise AdmissionError(
                "too_many_models", f"{model!r} is refused: events.models is {limits.models}"
            )
        is_new_pod = next(registry.of_pod(worker.pod), None) is None
        if is_new_pod and registry.pod_count >= limits.pods and not self._make_room():
            raise AdmissionError(
                "too_many_pods", f"{worker.pod!r} is refused: events.pods is {limits.pods}"
            )

    def _make_room(self) -> bool:
        """Forget the pod that has been gone longest; False if there is none."""
        now = time.monotonic()
        if now < self._next_scan:
            return False
        self._next_scan = now + _SCAN_SECONDS
        silence: dict[str, float] = {}
        connected = set()
        for worker, stream in self._registry.by_worker.items():
            if stream.is_connected or stream.source is None or stream.source.pod:
                connected.add(worker.pod)
            else:
                silent = stream.silent_for(now) or 0.0
                silence[worker.pod] = min(silent, silence.get(worker.pod, silent))
        gone = sorted(silence.keys() - connected, key=lambda pod: -silence[pod])
        for pod in gone[:1]:
            for stream in list(self._registry.of_pod(pod)):
                self._forget(stream)
        self._next_scan = 0.0 if len(gone) > 1 else self._next_scan
        return bool(gone)
