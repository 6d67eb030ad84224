"""Tells other replicas about routings, and hears of theirs.

A decision that is recorded here is told to all replicas, so that its blocks are speculative in the
answers of each. A routing or an outcome whose handle another replica gave is told to all, too: the
one that gave it acts on it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

from service.routing.errors import HandleUnknownError, NotRoutedError, RoutingError
from service.routing.handles import instance_of
from store import (
    ForwardedOutcome,
    ForwardedRouting,
    RoutingEntry,
    RoutingJournal,
    SharedDecision,
    StoreError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from service.loops import Loop
    from service.routing.routing import Routing
    from store import Failures, RoutingMessage, Store

_MOST_WAITING = 4 * 1024**2  # bytes of keys, and half a kilobyte a message
_BYTES_OF_A_MESSAGE = 512
_BYTES_OF_AN_ENTRY = 64 * 1024
_MOST_ORIGINS = 256
_PAUSE_SECONDS = 0.25  # after the store has failed
_EARLY_SECONDS = 0.5  # by which the routing of an outcome has come
_MOST_EARLY = 4096


class RoutingPeers(Protocol):
    """Whoever else is told of routings."""

    lost: Counter[str]
    """Messages and entries that were lost, by why: outbox_full, store_failed, missed, refused,
    malformed."""

    def tell(self, message: RoutingMessage) -> None:
        """Tell all others. Raises HandleUnknownError for a forwarded one if there are none."""
        ...


class NoPeers(RoutingPeers):
    """There is no other replica: handles that were not given here are unknown."""

    def __init__(self) -> None:
        self.lost = Counter()

    @override
    def tell(self, message: RoutingMessage) -> None:
        if not isinstance(message, SharedDecision):
            raise HandleUnknownError


class RoutingExchange(RoutingPeers):
    """The other replicas, through the routing journal of the store."""

    def __init__(
        self,
        journal: RoutingJournal,
        routing: Routing,
        failures: Failures,
        live_instances: Callable[[], Collection[bytes]],
    ) -> None:
        """Args: live_instances: what the handles of the live replicas begin with."""
        self._live_instances = live_instances
        self._journal = journal
        self._routing = routing
        self._failures = failures
        self._waiting: deque[tuple[int, RoutingMessage]] = deque()
        self._waiting_bytes = 0
        self._has_news = asyncio.Event()
        self._number = 0
        self._early: deque[tuple[float, ForwardedOutcome]] = deque()
        self._last_numbers: OrderedDict[bytes, int] = OrderedDict()
        self.lost = Counter()

    def loops(self) -> Mapping[str, Loop]:
        """Return what has to run in the background."""
        return {"tell routings": self._tell, "hear routings": self._hear}

    @override
    def tell(self, message: RoutingMessage) -> None:
        is_shared = isinstance(message, SharedDecision)
        if not is_shared and not message.handle.startswith(tuple(self._live_instances())):
            raise HandleUnknownError
        size = _BYTES_OF_A_MESSAGE
        if isinstance(message, SharedDecision):
            size += sum(8 * len(keys) for keys in message.keys.values())
        if self._waiting_bytes + size > _MOST_WAITING:
            self.lost["outbox_full"] += 1
            return
        self._waiting.append((size, message))
        self._waiting_bytes += size
        self._has_news.set()

    async def _tell(self) -> None:
        while True:
            await self._has_news.wait()
            messages = self._take()
            entry = RoutingEntry(self._routing.handles.instance, self._number, messages)
            self._number += 1
            try:
                await self._journal.append(entry)
            except StoreError as error:
                self._failures.record(error)
                self.lost["store_failed"] += len(messages)
                await asyncio.sleep(_PAUSE_SECONDS)

    def _take(self) -> list[RoutingMessage]:
        messages: list[RoutingMessage] = []
        taken = 0
        while self._waiting and (not messages or taken + self._waiting[0][0] < _BYTES_OF_AN_ENTRY):
            size, message = self._waiting.popleft()
            messages.append(message)
            taken += size
        self._waiting_bytes -= taken
        if not self._waiting:
            self._has_news.clear()
        return messages

    async def _hear(self) -> None:
        while True:
            try:
                entries = await self._journal.read()
            except StoreError as error:
                self._failures.record(error)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            self._count_early()
            for entry in entries:
                if entry.origin != self._routing.handles.instance:
                    self._on_entry(entry)
                await asyncio.sleep(0)  # others go first in between
            self.lost["malformed"] = self._journal.malformed

    def _on_entry(self, entry: RoutingEntry) -> None:
        last = self._last_numbers.pop(entry.origin, None)
        if last is not None and entry.number > last + 1:
            self.lost["missed"] += entry.number - last - 1
        self._last_numbers[entry.origin] = entry.number
        if len(self._last_numbers) > _MOST_ORIGINS:
            self._last_numbers.popitem(last=False)
        for message in entry.messages:
            try:
                self._on_message(message)
            except RoutingError:
                self.lost["refused"] += 1

    def _on_message(self, message: RoutingMessage) -> None:
        match message:
            case SharedDecision():
                self._routing.add_shared(message)
            case ForwardedRouting(handle, pod, rank, seconds):
                if self._routing.handles.gave(handle):
                    self._routing.record(handle, pod, rank, seconds)
            case ForwardedOutcome(handle, pod, rank, cached, by_source):
                if self._routing.handles.gave(handle):
                    try:
                        self._routing.report(handle, pod, rank, cached, by_source)
                    except NotRoutedError:  # another replica is about to tell of the routing
                        if len(self._early) >= _MOST_EARLY:
                            raise
                        self._early.append((time.monotonic(), message))

    def _count_early(self) -> None:
        """Count the outcomes that came before their routings."""
        while self._early and self._early[0][0] < time.monotonic() - _EARLY_SECONDS:
            _, (handle, pod, rank, cached, by_source) = self._early.popleft()
            try:
                self._routing.report(handle, pod, rank, cached, by_source)
            except RoutingError:
                self.lost["refused"] += 1


def share_routing(
    store: Store,
    routing: Routing,
    identity: str,
    live: Callable[[], Collection[str]],
    failures: Failures,
) -> Mapping[str, Loop]:
    """Let replicas tell each other of routings; return what has to run for that, by name.

    Args:
        store: which they share.
        routing: of this replica.
        identity: of this replica.
        live: returns the identities of the live replicas.
        failures: counts those of the store.
    """
    routing.handles.instance = instance_of(identity)
    exchange = RoutingExchange(
        RoutingJournal(store),
        routing,
        failures,
        lambda: [instance_of(replica) for replica in live()],
    )
    routing.peers = exchange
    return exchange.loops()
