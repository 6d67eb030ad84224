"""Event -> index writes: what each event of a worker does to the index.

`EventCounts` counts, for each worker, the applied events by type, and by reason every event and
block that could not be applied; the worker's trust follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from indexer import Attention, TrustState
from kvevents.applying.cache_groups import CacheGroups
from kvevents.applying.index_writer import IndexWriter
from kvevents.applying.other_cache import OtherCache
from kvevents.applying.pieces import PIECE_KEYS, hash_count, is_short, pieces_of
from kvevents.applying.places import Places
from kvevents.trust import Downgrade, GpuCleared
from kvevents.wire import (
    DECODE_ERRORS,
    GPU_TIER,
    AllBlocksCleared,
    BlockRemoved,
    BlockStored,
    ExtraStrings,
    TierClass,
    class_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from indexer import Index, KeyScheme, Place, Worker
    from kvevents.applying.cache_groups import EngineSettings
    from kvevents.applying.orphans import Orphans
    from kvevents.trust import Trust, TrustChange
    from kvevents.wire import Batch, Event

_EVENT_WEIGHT = 16  # an event without hashes takes as long as so many hashes
_MAX_SPAN = 4096  # block keys that one engine hash can stand for

_log = structlog.get_logger("kvatlas.kvevents")


class Applier:
    """Applies one worker's events to the index, in the order in which they are given.

    The worker must have joined the index.

    Args:
        index, worker, scheme: where the blocks are written, whose they are, and their keys.
        trust: only read, to tell contradictions; changes are returned.
        extra_strings: how plain strings among extra keys are read.
        count_copies: whether a block announced again has one more copy; see `Index`.
        settings: what the worker's engine was started with.

    Attributes:
        counts: what happened to the events so far.
        orphans: the worker's blocks that wait.
        groups: the worker's cache groups.
    """

    def __init__(
        self,
        index: Index,
        worker: Worker,
        scheme: KeyScheme,
        trust: Trust,
        orphans: Orphans,
        extra_strings: ExtraStrings = ExtraStrings.AUTO,
        count_copies: bool = True,
        settings: EngineSettings | None = None,
    ) -> None:
        self._index = index
        self._worker = worker
        self._classes = trust.classes
        self.groups = CacheGroups(scheme.block_size, settings)
        self._writer = IndexWriter(
            index,
            worker,
            scheme,
            trust,
            orphans,
            self.groups,
            extra_strings,
            count_copies=count_copies,
        )
        self.counts, self.orphans = self._writer.counts, orphans
        self.take_trust_changes = self._writer.take_trust_changes
        self._places = Places(trust)
        self._sparse: list[BlockStored] = []
        self._is_cleared = False  # by the event before this one of the same batch
        self._other_cache = OtherCache()

    @property
    def has_resolved(self) -> bool:
        """Whether the meaning of any engine hash was ever learned."""
        return self._writer.has_resolved

    @property
    def named_tiers(self) -> set[str]:
        """The tiers that the worker's events have named."""
        return self._places.named_tiers

    def read_extra_strings_as(self, extra_strings: ExtraStrings) -> None:
        """Change how plain strings among extra keys are read."""
        self._writer.extra_strings = extra_strings

    def apply_batch(self, batch: Batch) -> Sequence[TrustChange]:
        """Apply the events of a batch; returns the changes of the worker's trust, in order."""
        if is_short(batch, self.groups.span):
            self._try(self._learn_groups, batch.events)
            for event in batch.events:
                self.counts.events[type(event).__name__] += self._try(self._apply, event)
            self._finish(batch)
        else:
            for _ in self.apply_in_slices(batch):
                pass
        return self.take_trust_changes()

    def apply_in_slices(self, batch: Batch) -> Iterator[None]:
        """Apply the events of a batch, a slice with each step of the iterator."""
        self._try(self._learn_groups, batch.events)
        room, span = PIECE_KEYS, self.groups.span
        for event in batch.events:
            applied = 0
            for piece in pieces_of(event, span):
                if room <= 0:
                    yield
                    room = PIECE_KEYS
                room -= _EVENT_WEIGHT + hash_count(piece) * span
                applied += self._try(self._apply, piece)
            self.counts.events[type(event).__name__] += applied > 0
            if not applied and hash_count(event) > PIECE_KEYS:
                self._skip("event_too_long", hash_count(event))
        self._finish(batch)

    def _finish(self, batch: Batch) -> None:
        self._try(self._learn_from_sparse)
        for reason, count in batch.skipped.items():
            self.counts.skipped[reason] += count
            if reason not in DECODE_ERRORS:  # the sequencer handles damaged frames
                self._writer.report(Downgrade(TrustState.DEGRADED, reason, recoverable=False))

    def _skip(self, reason: str, count: int) -> None:
        self.counts.skipped[reason] += count
        self._writer.report(Downgrade(TrustState.PARTIAL, reason, recoverable=False))

    def _try(self, step: Callable[..., None], *arguments: Any) -> bool:
        """Do one step of a batch; False if it fails: one bad event must not cost the others."""
        try:
            step(*arguments)
            return True
        except Exception:  # noqa: BLE001 - counted, and shown in every answer
            self.counts.skipped["internal_error"] += 1
            error = Downgrade(TrustState.DEGRADED, "internal_error", recoverable=False)
            self._writer.report(error)
            _log.exception("event_not_applied", pod=self._worker.pod, rank=self._worker.rank)
            return False

    def _learn_groups(self, events: Sequence[Event]) -> None:
        """Learn which cache groups there are from all events, before applying any."""
        self._is_cleared = False
        if self.groups.learn(events):
            self._set_layout()

    def _apply(self, event: Event) -> None:
        if not isinstance(event, AllBlocksCleared):
            self._is_cleared = False
        match event:
            case BlockStored():
                self._store(event)
            case BlockRemoved():
                self._remove(event)
            case AllBlocksCleared():
                self._clear()

    def _learn_from_sparse(self) -> None:
        """Learn what the hashes of sparse events mean, now that the batch's others are known."""
        sparse, self._sparse = self._sparse, []
        for event in sparse:
            self._writer.learn_from_sparse(event)

    def _set_layout(self) -> None:
        layout = self.groups.layout
        size = self._index.layout_of(self._worker).key_block_size
        if size not in (0, layout.key_block_size) and self.has_resolved:
            # The index drops keys of another length: everything has to be announced again.
            self._writer.clear_orphans()
            self._writer.report(Downgrade(TrustState.PARTIAL, "block_size_changed"))
        self._index.describe(self._worker, layout)
        self._writer.use_key_size(self.groups.key_block_size)

    # Engines come and go; each call returns the changes of the worker's trust

    def on_engine_restarted(self) -> Sequence[TrustChange]:
        """Drop what died with the former engine's process."""
        lost = [tier for tier in self._places.tiers if class_of(tier) is not TierClass.STORAGE]
        self._index.restart(self._worker, lost)
        self.groups.restart()
        self._writer.clear_orphans()
        self._other_cache.clear()
        return self._writer.take_trust_changes()

    def drop_classes(
        self, classes: Collection[TierClass], *, forget_hashes: bool = False
    ) -> Sequence[TrustChange]:
        """Drop everything that is claimed in tiers of these classes.

        forget_hashes: forget what engine hashes mean, too: another engine may have named others so.
        """
        tiers = [tier for tier in self._places.tiers if class_of(tier) in classes]
        if forget_hashes:
            self._index.restart(self._worker, tiers)
            self._writer.clear_orphans()
        else:
            self._index.clear(self._worker, tiers)
            self._writer.clear_orphans(tiers)
        return self._writer.take_trust_changes()

    def restore(self, tiers: Iterable[str]) -> Sequence[TrustChange]:
        """Go on with what the index holds of the worker: blocks in `tiers`, and its groups."""
        self._writer.on_restored()
        for tier in tiers:
            self._places.find(tier, None)
        self.groups.load(self._index.layout_of(self._worker))
        self._set_layout()
        return self._writer.take_trust_changes()

    # BlockStored

    def _store(self, event: BlockStored) -> None:
        hashes, size, writer = event.block_hashes, event.block_size, self._writer
        place = self._places.find(event.medium, event.group_idx)
        if place is None:
            self._skip("too_many_places", len(hashes))
            return
        group = self.groups.get(place.group)
        attention = Attention.MAIN if group is None else group.attention
        if not hashes or attention is Attention.IGNORED:
            self.counts.skipped["ignored_group"] += len(hashes)
            return
        writer.check_extras(event)
        is_dense = size > 0 and len(hashes) * size == len(event.token_ids) > 0
        on_gpu = place.tier == GPU_TIER
        if not is_dense or (not on_gpu and writer.resolves_all(hashes)):
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
        elif size % self.groups.key_block_size or size > _MAX_SPAN * self.groups.key_block_size:
            writer.skip("block_size_mismatch", len(hashes), place)
        else:
            if on_gpu:
                self._classes.count_gpu_stores()
            writer.store_with_tokens(event, place)

    def _store_part(self, event: BlockStored, place: Place) -> None:
        """Store blocks that are shorter than their group's: parts of one, or of another cache."""
        is_part = event.block_size % self.groups.key_block_size == 0
        if is_part and self._writer.resolves_parent(event):
            self._writer.store_with_tokens(event, place)
            return
        self.counts.skipped["other_cache"] += len(event.block_hashes)
        self._other_cache.add(place, event.block_hashes)

    # BlockRemoved, AllBlocksCleared

    def _remove(self, event: BlockRemoved) -> None:
        place = self._places.find(event.medium, event.group_idx)
        group = None if place is None else self.groups.get(place.group)
        if place is None or (group is not None and group.attention is Attention.IGNORED):
            reason = "too_many_places" if place is None else "ignored_group"
            self.counts.skipped[reason] += len(event.block_hashes)
            return
        hashes = self._other_cache.without_waiting(event, place, self.orphans)
        self._writer.report_orphans()
        unknown = self._index.remove(self._worker, place, hashes)
        if (limits := event.remaining_copy_counts) is not None:
            self._index.limit_copies(self._worker, place, event.block_hashes, limits)
        if unknown:
            self.counts.skipped["not_held"] += unknown
            self._writer.contradict(place)

    def _clear(self) -> None:
        if self._is_cleared:
            return
        self._is_cleared = True
        self._index.clear(self._worker, (GPU_TIER,))
        self._other_cache.clear()
        self._writer.clear_orphans((GPU_TIER,))
        self._writer.report(GpuCleared())
