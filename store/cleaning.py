"""What nobody needs any more is dropped from the store, in the background, a few pages at a time.

Clearing a worker leaves its seats, and their slots, to nobody: that is a constant number of
commands. Here the rows and bits that they had are found by the worker's own pages and dropped, and
only then may the slots be allotted again. So are generations that were left: those of workers that
are gone, and those that were written again.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np

from indexer import model_scope
from store.layout import PAGES, block_names
from store.server import Call
from store.store import all_of

if TYPE_CHECKING:
    from indexer import SharedIndex
    from store.flush import Written
    from store.records import Garbage
    from store.store import Store
    from store.writer import Writer

_PAGES_AT_A_TIME = 16


class Cleaner:
    """Cleans up after `writer`'s workers, and what was put aside as garbage. Raises StoreError."""

    def __init__(
        self,
        store: Store,
        index: SharedIndex,
        writer: Writer,
    ) -> None:
        self._store = store
        self._index = index
        self._writer = writer
        self.slots_freed = 0

    async def clean_worker(self, of: Written) -> None:
        """Drop what the worker's retired slots hold, and free them."""
        generation, retired = of.generation, dict(of.retired)
        home = self._store.layout.home(of.worker)
        for first in range(0, PAGES, _PAGES_AT_A_TIME):
            last = first + _PAGES_AT_A_TIME - 1
            found = await self._store.some_pages(home, generation, first, last)
            if self._writer.owned.get(of.worker) is not of or of.generation != generation:
                return
            seats = self._index.seats_of(of.worker)
            live = set(seats.numbers.values()) if seats is not None else set()
            names, keys = _rows_of_others(found, live)
            if names:
                self._index.note_again(of.worker, names, keys)
                self._writer.wake()
                await self._writer.settled(of.worker)
        await self._writer.settled(of.worker)
        if self._writer.owned.get(of.worker) is not of or of.generation != generation:
            return
        for seat in retired:
            of.retired.pop(seat, None)
        of.told = None  # nobody who takes the worker over is to clear these bits once more
        self._writer.wake()
        await self._writer.settled(of.worker)
        if self._writer.owned.get(of.worker) is of and of.generation == generation:
            await self._store.free(of.model, [of.label(seat) for seat in retired])
            self.slots_freed += len(retired)

    async def drop(self, garbage: Garbage) -> None:
        """Drop a generation."""
        slots = np.array(list(garbage.slots.values()), dtype="<u4").tobytes()
        scope = model_scope(garbage.model)
        store, home, generation = self._store, garbage.home, garbage.generation
        await wipe_generation(store, home, generation, scope, slots, garbage.registry)
        if garbage.reusable:
            await self._store.free_generation(garbage.model, garbage.generation)
            self.slots_freed += len(garbage.slots)
        await self._store.call("sweep", garbage.home, garbage.generation, 0, 0, 1)


async def wipe_generation(
    store: Store, home: int, generation: str, scope: int, slots: bytes, registry: str
) -> None:
    """Drop a generation's pages, and the bits that its `slots` (four bytes each) have."""
    for first in range(0, PAGES, _PAGES_AT_A_TIME):
        last = first + _PAGES_AT_A_TIME - 1
        found = await store.some_pages(home, generation, first, last)
        _, keys = _rows_of_others(found, set())
        if keys and slots:
            names = np.unique(block_names(keys, scope))
            shards = store.layout.shards_of(names)
            calls = [
                Call("wipe", int(shard), (names[shards == shard].tobytes(), slots, registry))
                for shard in np.unique(shards)
            ]
            all_of(await store.call_all(calls))
        await store.call("sweep", home, generation, first, last, 0)


def _rows_of_others(found: list[bytes], live: set[int]) -> tuple[array[int], array[int]]:
    """Names with rows of seats that are not among `live`, and the blocks of those rows."""
    names, keys = array("Q"), array("Q")
    for name, of_name in zip(found[::2], found[1::2], strict=True):
        rows = array("Q", of_name)
        gone = [at for at in range(0, len(rows), 2) if rows[at + 1] >> 32 not in live]
        if gone:
            names.frombytes(name)
            keys.extend(rows[at] for at in gone)
    return names, keys
