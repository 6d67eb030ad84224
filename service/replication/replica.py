"""What the rest of the service asks of its replica, and the answers of the only one.

Whether the index is replicated is decided once, by the composition root's choice between
`StandaloneReplica` and `SharedReplica`. Nothing else asks.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from typing_extensions import override

from kvevents import OwnsEverything
from service.replication.worker_status import LocalWorkers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from prometheus_client.registry import Collector

    from indexer import Index, PrefixMatch, PromptKeys, TrustStatus, Worker
    from kvevents import Listener, Ownership
    from service.loops import Loop
    from service.replication.worker_status import Workers
    from service.routing import Routing


class ListenerFactory(Protocol):
    """Makes the listener of a replica."""

    def __call__(self, *, ownership: Ownership, on_change: Callable[[], None]) -> Listener:
        """Return a listener that is not started yet.

        Args:
            ownership: decides whose events are applied here.
            on_change: called whenever something of a worker may have changed.
        """
        ...


class PromptMatch(NamedTuple):
    """How much of a prompt each worker holds, and how far that can be trusted."""

    pods: Collection[str]
    """Those that serve the model."""
    match: PrefixMatch
    status_of: Callable[[Worker, float], TrustStatus]
    """Takes a worker and `now`."""
    now: float
    """The time at which the index was matched (`time.monotonic`)."""
    copy_behind_seconds: float | None
    """How far the copy lags, if some of this is from a copy of other replicas' blocks."""
    is_late: bool = False
    """Whether blocks are missing because the store has not answered in time."""


class ReplicationStatus(NamedTuple):
    """Who shares the index, and how far the copy lags; as SharedIndex in fleet.proto."""

    replica: str
    live_replicas: Sequence[str]
    copy_behind_seconds: float | None
    store_failure: str


class Replica(Protocol):
    """This process, among the replicas that share its index."""

    @property
    def listener(self) -> Listener:
        """Receives and applies events."""
        ...

    @property
    def workers(self) -> Workers:
        """Every worker, whichever replica applies its events."""
        ...

    def status(self, now: float) -> ReplicationStatus | None:
        """Return the state of the shared index as seen here; None if it is not shared."""
        ...

    def collectors(self) -> Iterator[Collector]:
        """Return the metrics of replication."""
        ...

    async def __aenter__(self) -> Self:
        """Start listening, and sharing the index if it is shared.

        Raises SubscribeError, and StoreError if the store refuses this service.
        """
        ...

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop listening, and release what this replica owns."""
        ...

    async def begin_leaving(self) -> None:
        """Hand the workers over to other replicas, while calls are still answered."""
        ...

    async def wait_until_ready(self) -> None:
        """Wait for a complete copy of other replicas' blocks, at most `ready_seconds`."""
        ...

    @property
    def may_wait(self) -> bool:
        """Whether `match` may have to wait, for the store."""
        ...

    @property
    def has_all_blocks(self) -> bool:
        """Whether this process's memory has, or will have, the blocks of all workers."""
        ...

    async def match(
        self, model: str, prompt: PromptKeys, until: float | None = None
    ) -> PromptMatch:
        """Return how much of a prompt each worker holds.

        until: when to go on without the store, by the clock of the event loop; None: never.

        Raises StoreError if only the store could answer, and fails.
        """
        ...

    async def forget_pod(self, pod: str) -> bool:
        """Remove a pod, whichever replicas apply its events; return False if it is not known.

        Raises StoreError.
        """
        ...

    async def forget_gone_pod(self, pod: str) -> bool:
        """Remove a pod that is gone, unless another live replica has yet to notice that.

        Returns whether nothing is left of it.

        Raises StoreError.
        """
        ...

    async def resync_pod(self, pod: str) -> list[tuple[Worker, bool]]:
        """Learn a pod's workers anew; return for each whether it can be replayed.

        Raises StoreError.
        """
        ...

    def on_under_delivery(self, worker: Worker) -> None:
        """The worker's engine reuses less than answers say: doubt them, and learn it anew."""
        ...

    def share_routing(self, routing: Routing) -> Mapping[str, Loop]:
        """Let replicas tell each other of routings; return what has to run for that, by name."""
        ...


class StandaloneReplica(Replica):
    """Applies every worker's events, and answers from this process's memory."""

    def __init__(self, index: Index, make_listener: ListenerFactory) -> None:
        self._index = index
        self._listener = make_listener(ownership=OwnsEverything(), on_change=_ignore)
        self._workers = LocalWorkers(self._listener.router.streams)

    @property
    @override
    def listener(self) -> Listener:
        return self._listener

    @property
    @override
    def workers(self) -> Workers:
        return self._workers

    @property
    @override
    def may_wait(self) -> bool:
        return False

    @property
    @override
    def has_all_blocks(self) -> bool:
        return True

    @override
    def status(self, now: float) -> ReplicationStatus | None:
        return None

    @override
    def collectors(self) -> Iterator[Collector]:
        return iter(())

    @override
    async def __aenter__(self) -> Self:
        await self._listener.__aenter__()
        return self

    @override
    async def __aexit__(self, *exc_info: object) -> None:
        await self._listener.__aexit__(*exc_info)

    @override
    async def begin_leaving(self) -> None:
        return

    @override
    async def wait_until_ready(self) -> None:
        return

    @override
    async def match(
        self, model: str, prompt: PromptKeys, until: float | None = None
    ) -> PromptMatch:
        now, match = time.monotonic(), self._index.match(model, prompt)
        return PromptMatch(self._index.pods_of(model), match, self._workers.trust_status, now, None)

    @override
    async def forget_pod(self, pod: str) -> bool:
        return self._listener.router.forget_pod(pod)

    @override
    async def forget_gone_pod(self, pod: str) -> bool:
        self._listener.router.forget_pod(pod)
        return True

    @override
    async def resync_pod(self, pod: str) -> list[tuple[Worker, bool]]:
        return await self._listener.resync_pod(pod)

    @override
    def on_under_delivery(self, worker: Worker) -> None:
        self._listener.router.on_under_delivery(worker)

    @override
    def share_routing(self, routing: Routing) -> Mapping[str, Loop]:
        return {}


def _ignore() -> None:
    """Changes of workers concern no other replica."""
