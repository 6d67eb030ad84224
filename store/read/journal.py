"""Reads the journal of one shard, and finds out whether entries of it were lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from store.errors import StoreError
from store.records import pairs
from store.scripts import HasEntry, ReadJournal

if TYPE_CHECKING:
    from store.store import Store

MAX_ENTRIES = 100  # in one answer
MAX_BYTES = 256 * 1024**2  # of one answer that is read with care; a replica writes shorter entries
_WAIT_SECONDS = 0.25  # for the first entry


class Journal:
    """The journal of one shard, read from a position on. Every method raises StoreError.

    An error of kind malformed means that entries are lost, or not to be told from others: whatever
    was read so far may be wrong, and is to be loaded anew.
    """

    def __init__(self, store: Store, shard: int) -> None:
        self._store = store
        self._shard = shard
        self.position = b""
        """Id of the last entry that was applied; empty before `position` is known."""
        self._with_care = False

    async def read(self) -> list[tuple[bytes, bytes]]:
        """Return some entries after the position, with their ids; wait a moment for the first."""
        try:
            entries = await (self._read_with_care() if self._with_care else self._read())
        except StoreError as error:
            # An entry that takes too long to read would take as long the next time.
            self._with_care = error.kind != "malformed"
            raise
        self._with_care = False
        await self._check_position()
        return entries

    async def _read(self) -> list[tuple[bytes, bytes]]:
        key = self._store.layout.prefix(self._shard) + "journal"
        server = self._store.server
        return await server.read_journal(key, self.position, MAX_ENTRIES, _WAIT_SECONDS)

    async def _read_with_care(self) -> list[tuple[bytes, bytes]]:
        script = ReadJournal(self.position, MAX_ENTRIES, MAX_BYTES)
        return list(pairs(await self._store.call(script, self._shard)))

    async def _check_position(self) -> None:
        """Find out whether this is the journal that was read so far, so that nothing is skipped.

        Entries that it has dropped for its length are missed like those of a skipped revision.
        """
        if self.position == b"0-0":
            return  # it was empty
        if not await self._store.call(HasEntry(self.position), self._shard):
            raise StoreError("malformed", "the journal is another one by now")
