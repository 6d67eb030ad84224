"""Deletes what no replica needs any more, in the background, a few pages at a time.

Clearing or restarting a worker releases holder ids, with a constant number of commands: their rows
and bits stay in the store. The collector finds them by the worker's own pages and deletes them.
Only then are the bits allocated again: a bit must never be another holder's while blocks still have
it.

Generations that were left, and those of workers that were removed, are deleted in the same way.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np

from indexer import model_scope
from store.errors import StoreError
from store.layout import PAGES, block_names
from store.records import pairs
from store.scripts import ClearBits, DeletePages
from store.store import all_succeeded
from store.write.stale_rows import stale_rows
from store.write.write_batch import packed_bits

if TYPE_CHECKING:
    from collections.abc import Collection

    from indexer import ReplicatedIndex
    from store.records import Garbage
    from store.store import Store
    from store.write import OwnedWorker, Writer

_PAGES_AT_ONCE = 16


class GarbageCollector:
    """Collects after the workers of one writer, and what scripts have put aside as garbage."""

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

    async def collect_worker(self, owned: OwnedWorker) -> None:
        """Delete rows and bits of released holder ids, and free the bits. Raises StoreError.

        Gives up as soon as the worker changes hands or begins a new generation: its bits then are
        part of the garbage.
        """
        generation, retired = owned.generation, list(owned.retired_bits)
        home = self._store.layout.home(owned.worker)
        for first in range(0, PAGES, _PAGES_AT_ONCE):
            last = first + _PAGES_AT_ONCE - 1
            try:
                pages = await self._store.read_pages(home, generation, first, last)
                names, keys = stale_rows(pairs(pages), self._live_ids(owned))
            except StoreError as error:
                if error.kind == "malformed":
                    self._writer.rewrite(owned.worker)
                raise
            if not self._is_current(owned, generation):
                return
            if names:
                # The writer writes these names and blocks as they are now: without the rows, and
                # with the retired bits cleared.
                self._index.requeue(owned.worker, names, keys)
                self._writer.wake()
                await self._writer.flushed(owned.worker)
        await self._writer.flushed(owned.worker)
        if not self._is_current(owned, generation):
            return
        for holder_id in retired:
            owned.retired_bits.pop(holder_id, None)
        self._writer.write_again(owned.worker)  # so that no later owner finds these bits retired
        await self._writer.flushed(owned.worker)
        if self._is_current(owned, generation):
            labels = [owned.bit_label(holder_id) for holder_id in retired]
            await self._store.free_bits(owned.model, labels)
            self.bits_freed += len(retired)

    def _live_ids(self, owned: OwnedWorker) -> set[int]:
        holder_ids = self._index.holder_ids_of(owned.worker)
        return set() if holder_ids is None else set(holder_ids.ids.values())

    def _is_current(self, owned: OwnedWorker, generation: str) -> bool:
        return self._writer.is_owned(owned) and owned.generation == generation

    async def collect(self, garbage: Garbage) -> None:
        """Delete a generation, and free its bits. Raises StoreError."""
        store, home, generation = self._store, garbage.home, garbage.generation
        scope, bits = model_scope(garbage.model), garbage.bits.values()
        cleared = await delete_generation(store, home, generation, scope, bits, garbage.registry)
        if garbage.reusable and cleared:
            await store.free_generation_bits(garbage.model, generation)
            self.bits_freed += len(bits)
        await store.call(DeletePages(generation, first=0, last=0, is_last=1), home)


async def delete_generation(
    store: Store, home: int, generation: str, scope: int, bits: Collection[int], registry: str
) -> bool:
    """Delete a generation's pages, and clear its bits in all blocks. Raises StoreError.

    Returns whether every block was found.
    """
    all_cleared = True
    for first in range(0, PAGES, _PAGES_AT_ONCE):
        last = first + _PAGES_AT_ONCE - 1
        try:
            pages = await store.read_pages(home, generation, first, last)
            _, keys = stale_rows(pairs(pages), set())
        except StoreError as error:
            if error.kind != "malformed":
                raise
            keys, all_cleared = array("Q"), False  # which blocks these pages had is lost
        if keys and bits:
            names = np.unique(block_names(keys, scope))
            shards = store.layout.shards_of(names)
            calls = [
                ClearBits(names[shards == shard].tobytes(), packed_bits(bits), registry).at(
                    int(shard)
                )
                for shard in np.unique(shards)
            ]
            all_succeeded(await store.call_all(calls))
        await store.call(DeletePages(generation, first, last, is_last=0), home)
    return all_cleared
