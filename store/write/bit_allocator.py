"""Gives every scored holder of this replica's workers a bit in the store's bitmaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from indexer import Place, ReplicatedIndex
    from store.store import Store
    from store.write.owned_worker import OwnedWorker


class BitAllocator:
    """Allocates the bits that a worker's scored holder ids still lack."""

    def __init__(self, store: Store, index: ReplicatedIndex) -> None:
        self._store = store
        self._index = index

    async def allocate(self, owned: OwnedWorker) -> None:
        """Allocate what is missing, or find that a rewrite is needed. Raises StoreError."""
        missing = [h for h in self._scored_places(owned) if h not in owned.bits]
        if not missing or owned.needs_rewrite:
            return
        generation = owned.generation
        labels = [owned.bit_label(holder_id) for holder_id in missing]
        registry, bits = await self._store.allocate_bits(owned.model, labels)
        if owned.generation != generation:
            return
        if owned.registry not in ("", registry):
            owned.needs_rewrite = True  # the store has lost what it allocated before
            return
        owned.registry = registry
        owned.bits.update(zip(missing, bits, strict=True))

    def is_complete(self, owned: OwnedWorker) -> bool:
        """Whether every scored holder id has a bit."""
        return all(holder_id in owned.bits for holder_id in self._scored_places(owned))

    def _scored_places(self, owned: OwnedWorker) -> dict[int, Place]:
        holder_ids = self._index.holder_ids_of(owned.worker)
        return {} if holder_ids is None else holder_ids.scored()
