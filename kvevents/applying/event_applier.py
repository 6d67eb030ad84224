"""Event -> index writes, one event at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from indexer import Attention, EngineHash, TrustState
from kvevents.applying.other_cache import OtherCache
from kvevents.applying.places import Places
from kvevents.trust import Downgrade, GpuCleared
from kvevents.wire import GPU_TIER, AllBlocksCleared, BlockRemoved, BlockStored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from indexer import Hashes, Index, Place, Worker
    from kvevents.applying.cache_groups import CacheGroups
    from kvevents.applying.familiar import FamiliarForms
    from kvevents.applying.index_writer import IndexWriter
    from kvevents.trust import Trust
    from kvevents.wire import Event

_MAX_SPAN = 4096  # block keys that one engine hash can stand for


class EventApplier:
    """Applies single events of one worker to the index.

    Args:
        index, worker: where the blocks are written, and whose they are.
        writer: writes blocks, learns meanings, and counts.
        groups: the worker's cache groups.
        trust: told of the classes of tiers that count.
        familiar: told of events that others are like.

    Attributes:
        places: where the worker's events have put blocks.
        other_cache: blocks of other caches than their group's.
    """

    def __init__(
        self,
        index: Index,
        worker: Worker,
        writer: IndexWriter,
        groups: CacheGroups,
        trust: Trust,
        familiar: FamiliarForms,
    ) -> None:
        self._index = index
        self._worker = worker
        self._writer = writer
        self._groups = groups
        self._familiar = familiar
        self._counts, self._orphans = writer.counts, writer.orphans
        self.places = Places(trust)
        self.other_cache = OtherCache()
        self._sparse: list[BlockStored] = []
        self._is_cleared = False  # by the event before this one of the same batch

    def begin_batch(self) -> None:
        """Expect the events of another batch: a clear at its beginning is not a repeated one."""
        self._is_cleared = False

    def take_sparse(self) -> Sequence[BlockStored]:
        """Return the events of which only the hashes could be read, and forget them.

        Once the batch's other events are known, the meanings of their hashes may be learned.
        """
        sparse, self._sparse = self._sparse, []
        return sparse

    def apply(self, event: Event) -> None:
        """Apply an event."""
        if not isinstance(event, AllBlocksCleared):
            self._is_cleared = False
        match event:
            case BlockStored():
                self._store(event)
            case BlockRemoved():
                self._remove(event)
            case AllBlocksCleared():
                self._clear()

    # BlockStored

    def _store(self, event: BlockStored) -> None:
        hashes, size, writer = event.block_hashes, event.block_size, self._writer
        place = self.places.find(event.medium, event.group_idx)
        if place is None:
            self.skip("too_many_places", len(hashes))
            return
        group = self._groups.get(place.group)
        attention = Attention.MAIN if group is None else group.attention
        if not hashes or attention is Attention.IGNORED:
            self._counts.skipped["ignored_group"] += len(hashes)
            return
        writer.check_extras(event)
        is_dense = size > 0 and len(hashes) * size == len(event.token_ids) > 0
        on_gpu = place.tier == GPU_TIER
        if not is_dense or (not on_gpu and self._resolves_all(hashes)):
            # Only the hashes are reliable: a group may announce a few of its blocks, and an offload
            # tier's tokens come without salts and images.
            if writer.store_known(event, place) and on_gpu and event.token_ids:
                self._sparse.append(event)
        elif attention is not Attention.MAIN and not writer.resolves_parent(event):
            writer.store_known(event, place)
        elif event.lora_name is None and event.lora_id is not None:
            writer.skip("unnamed_adapter", len(hashes), place)
        elif on_gpu and group is not None and size != group.block_size:
            self._store_part(event, place)
        elif size % self._groups.key_block_size or size > _MAX_SPAN * self._groups.key_block_size:
            writer.skip("block_size_mismatch", len(hashes), place)
        else:
            if on_gpu:
                writer.count_gpu_stores()
                self._familiar.add(event, place, needs_parent=attention is not Attention.MAIN)
            writer.store_with_tokens(event, place)

    def _resolves_all(self, hashes: Hashes) -> bool:
        """Whether the meaning of every hash is known."""
        return all(self._writer.resolve(EngineHash(name)) is not None for name in hashes)

    def _store_part(self, event: BlockStored, place: Place) -> None:
        """Store blocks that are shorter than their group's: parts of one, or of another cache."""
        is_part = event.block_size % self._groups.key_block_size == 0
        if is_part and self._writer.resolves_parent(event):
            self._writer.store_with_tokens(event, place)
            return
        self._counts.skipped["other_cache"] += len(event.block_hashes)
        self.other_cache.add(place, event.block_hashes)

    # BlockRemoved, AllBlocksCleared

    def _remove(self, event: BlockRemoved) -> None:
        place = self.places.find(event.medium, event.group_idx)
        group = None if place is None else self._groups.get(place.group)
        if place is None or (group is not None and group.attention is Attention.IGNORED):
            reason = "too_many_places" if place is None else "ignored_group"
            self._counts.skipped[reason] += len(event.block_hashes)
            return
        hashes = self.other_cache.without_waiting(event, place, self._orphans)
        self._writer.report_orphans()
        unknown = self._index.remove(self._worker, place, hashes)
        if (limits := event.remaining_copy_counts) is not None:
            self._index.limit_copies(self._worker, place, event.block_hashes, limits)
        if unknown:
            self._counts.skipped["not_held"] += unknown
            self._writer.contradict(place)

    def _clear(self) -> None:
        if self._is_cleared:
            return
        self._is_cleared = True
        self._index.clear(self._worker, (GPU_TIER,))
        self.other_cache.clear()
        self._writer.clear_orphans((GPU_TIER,))
        self._writer.report(GpuCleared())

    def skip(self, reason: str, count: int) -> None:
        """Count blocks that are not applied: what is claimed of the worker is partial."""
        self._counts.skipped[reason] += count
        self._writer.report(Downgrade(TrustState.PARTIAL, reason, recoverable=False))
