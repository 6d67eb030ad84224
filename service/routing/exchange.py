"""Tells other replicas about routings, and hears of theirs.

A decision that is recorded here is told to all replicas, so that its blocks are speculative in the
answers of each. A routing or an outcome whose handle another replica gave is told to all, too: the
one that gave it acts on it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

from service.routing.errors import HandleUnknownError, RoutingError
from store import ForwardedOutcome, ForwardedRouting, RoutingEntry, SharedDecision, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.loops import Loop
    from service.routing.routing import Routing
    from store import Failures, RoutingJournal, RoutingMessage

_MOST_WAITING = 4 * 1024**2  # bytes of keys, and half a kilobyte a message
_BYTES_OF_A_MESSAGE = 512
_BYTES_OF_AN_ENTRY = 64 * 1024
_MOST_ORIGINS = 256
_PAUSE_SECONDS = 0.25  # after the store has failed


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

    def __init__(self, journal: RoutingJournal, routing: Routing, failures: Failures) -> None:
        self._journal = journal
        self._routing = routing
        self._failures = failures
        self._waiting: deque[tuple[int, RoutingMessage]] = deque()
        self._waiting_bytes = 0
        self._has_news = asyncio.Event()
        self._number = 0
        self._last_numbers: OrderedDict[bytes, int] = OrderedDict()
        self.lost = Counter()

    def loops(self) -> Mapping[str, Loop]:
        """Return what has to run in the background."""
        return {"tell routings": self._tell, "hear routings": self._hear}

    @override
    def tell(self, message: RoutingMessage) -> None:
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
                    self._routing.report(handle, pod, rank, cached, by_source)
