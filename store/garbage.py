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
    from indexer import ReplicatedIndex
    from store.records import Garbage
    from store.store import Store
    from store.write import OwnedWorker, Writer

_PAGES_AT_A_TIME = 16


class GarbageCollector:
    """Cleans up after `writer`'s workers, and what was put aside as garbage. Raises StoreError."""

    def __init__(
        self,
        store: Store,
        index: ReplicatedIndex,
        writer: Writer,
    ) -> None:
        self._store = store
        self._index = index
        self._writer = writer
        self.bits_freed = 0

    async def collect_worker(self, of: OwnedWorker) -> None:
        """Drop what the worker's retired slots hold, and free them."""
        generation, retired = of.generation, dict(of.retired_bits)
        home = self._store.layout.home(of.worker)
        for first in range(0, PAGES, _PAGES_AT_A_TIME):
            last = first + _PAGES_AT_A_TIME - 1
            found = await self._store.read_pages(home, generation, first, last)
            if self._writer.owned.get(of.worker) is not of or of.generation != generation:
                return
            seats = self._index.holder_ids_of(of.worker)
            live = set(seats.ids.values()) if seats is not None else set()
            names, keys = _rows_of_others(found, live)
            if names:
                self._index.requeue(of.worker, names, keys)
                self._writer.wake()
                await self._writer.flushed(of.worker)
        await self._writer.flushed(of.worker)
        if self._writer.owned.get(of.worker) is not of or of.generation != generation:
            return
        for seat in retired:
            of.retired_bits.pop(seat, None)
        of.last_written = None  # nobody who takes the worker over is to clear these bits once more
        self._writer.wake()
        await self._writer.flushed(of.worker)
        if self._writer.owned.get(of.worker) is of and of.generation == generation:
            await self._store.free_bits(of.model, [of.bit_label(seat) for seat in retired])
            self.bits_freed += len(retired)

    async def collect(self, garbage: Garbage) -> None:
        """Drop a generation."""
        slots = np.array(list(garbage.bits.values()), dtype="<u4").tobytes()
        scope = model_scope(garbage.model)
        store, home, generation = self._store, garbage.home, garbage.generation
        await wipe_generation(store, home, generation, scope, slots, garbage.registry)
        if garbage.reusable:
            await self._store.free_generation_bits(garbage.model, garbage.generation)
            self.bits_freed += len(garbage.bits)
        await self._store.call("sweep", garbage.home, garbage.generation, 0, 0, 1)


async def wipe_generation(
    store: Store, home: int, generation: str, scope: int, slots: bytes, registry: str
) -> None:
    """Drop a generation's pages, and the bits that its `slots` (four bytes each) have."""
    for first in range(0, PAGES, _PAGES_AT_A_TIME):
        last = first + _PAGES_AT_A_TIME - 1
        found = await store.read_pages(home, generation, first, last)
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
