"""The journal through which replicas tell each other about routed requests.

It is read from its end on: what was told while a replica did not listen is lost to it. Entries are
numbered, so that each reader can count what it has missed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from store.errors import StoreError
from store.layout import ROUTING_ENTRIES
from store.records import RoutingEntry

if TYPE_CHECKING:
    from store.store import Store

_KEY = "routings"
_ENTRIES_AT_ONCE = 100
_WAIT_SECONDS = 0.25  # for the first entry


class RoutingJournal:
    """The routing journal of a store, read from its present end on. Methods raise StoreError."""

    def __init__(self, store: Store) -> None:
        self._server = store.server
        self._key = store.layout.prefix(0) + _KEY
        self._position = b""
        self.malformed = 0
        """Entries that could not be decoded."""

    async def append(self, entry: RoutingEntry) -> None:
        """Tell all replicas."""
        bound = ("MAXLEN", "~", ROUTING_ENTRIES)
        await self._server.execute("XADD", self._key, *bound, "*", "e", entry.pack())

    async def read(self) -> list[RoutingEntry]:
        """Return what replicas have told since the last call; wait a moment for the first."""
        if not self._position:
            newest = await self._server.execute("XREVRANGE", self._key, "+", "-", "COUNT", 1)
            self._position = newest[0][0] if newest else b"0-0"
        found = await self._server.read_journal(
            self._key, self._position, _ENTRIES_AT_ONCE, _WAIT_SECONDS
        )
        entries = []
        for entry_id, blob in found:
            self._position = entry_id
            try:
                entries.append(RoutingEntry.unpack(blob))
            except StoreError:
                self.malformed += 1
        return entries
