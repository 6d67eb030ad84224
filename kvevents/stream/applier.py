"""Event -> index write: what each event of a worker does to the index.

Nothing is dropped silently: `EventCounts` counts, per worker, applied events by kind, and by reason every
event and every block that could not be applied; and the worker's trust is told of each.

What an engine hash means is learned from events that have tokens for each of their hashes. The
groups of a worker share their hashes, so a group that names only some of its blocks says with the
hash alone which they are; if that is not known yet, the hash waits.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from indexer import Attention, BlockKey, EngineHash, Place, TrustState
from kvevents.source import ExtraStrings
from kvevents.stream.block_parts import positions_of, spread_extras
from kvevents.stream.cache_groups import CacheGroups
from kvevents.stream.trust import EVERYWHERE, TierClass, class_of
from kvevents.wire import (
    GPU_TIER,
    AllBlocksCleared,
    BlockRemoved,
    BlockStored,
    parse_extra_keys,
    tier_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from indexer import Hashes, Index, KeyScheme, Worker
    from kvevents.stream.cache_groups import EngineSettings
    from kvevents.stream.orphans import Orphans
    from kvevents.stream.trust import Trust
    from kvevents.wire import Event

_MOST_PLACES = 63  # a block's holders of one worker are told elsewhere in 64 bits
_MOST_MEDIA = 256
_MOST_FOREIGN = 10_000
_MOST_SPAN = 65_535
_REUSED = "REUSED"
_NOWHERE = Place(GPU_TIER, -1)  # a group that no engine has, and no score counts


@dataclass(slots=True)
class EventCounts:
    """What became of a worker's events.

    events: applied ones by type. skipped: events and blocks not applied, by reason (each block
    counts on its own where an event was applied in part).
    """

    events: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)


class Applier:
    """Applies one worker's events to the index, in the order in which they are given.

    The worker must have joined the index. trust: told of what was not understood, and of what
    contradicts that everything is known. groups: of the worker's cache. resolved: whether any block
    was ever understood.
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
        self._scheme = scheme
        self.trust = trust
        self.orphans = orphans
        self.extra_strings = extra_strings
        self._count_copies = count_copies
        self.groups = CacheGroups(scheme.block_size, settings)
        self._places: dict[tuple[str | None, int | None], Place] = {}
        self._sparse: list[BlockStored] = []
        self._other_cache: dict[tuple[Place, int], int] = {}
        self.counts = EventCounts()
        self.resolved = False

    # A batch: `begin`, then `apply` for each event, then `finish`

    def begin_batch(self, events: Sequence[Event]) -> None:
        """A batch is to be applied: learn of the groups it tells of."""
        if self.groups.learn(events):
            self._describe()

    def apply(self, event: Event) -> None:
        """Apply one event, or count why not."""
        match event:
            case BlockStored():
                self._store(event)
            case BlockRemoved():
                self._remove(event)
            case AllBlocksCleared():
                self._clear()
        self.counts.events[type(event).__name__] += 1

    def finish_batch(self) -> None:
        """All events of a batch were applied: see where hashes that are not known must stand."""
        sparse, self._sparse = self._sparse, []
        for event in sparse:
            self._find_positions(event)

    def _describe(self) -> None:
        layout = self.groups.layout
        size = self._index.layout_of(self._worker).key_block_size
        if size not in (0, layout.key_block_size) and self.resolved:
            self.orphans.clear()  # keys of another length: all is to be learned again
            self.trust.downgrade(TrustState.PARTIAL, "block_size_changed", EVERYWHERE)
        self._index.describe(self._worker, layout)
        self._scheme = self._scheme.sized(self.groups.key_block_size)

    def restart(self) -> None:
        """Another engine is in the worker's place: what dies with the process is gone."""
        lost = [tier for tier in self._tiers() if class_of(tier) is not TierClass.STORAGE]
        self._index.restart(self._worker, lost)
        self.groups.restart()
        self.orphans.clear()
        self._other_cache.clear()

    def forget(self, classes: list[TierClass], *, hashes: bool = False) -> None:
        """Claim nothing any more in tiers of these classes.

        hashes: forget what engine hashes mean too, for another engine may give out the same ones.
        """
        tiers = [tier for tier in self._tiers() if class_of(tier) in classes]
        if hashes:
            self._index.restart(self._worker, tiers)
            self.orphans.clear()
        else:
            self._index.clear(self._worker, tiers)
            self.orphans.clear(tiers)

    @property
    def named_tiers(self) -> set[str]:
        """The tiers that the worker's events have named."""
        return {place.tier for place in self._places.values()}

    def restore_tiers(self, tiers: Iterable[str]) -> None:
        """The worker has blocks in these tiers already, and groups as the index says."""
        self.resolved = True
        for tier in tiers:
            self._place(tier, None)
        self.groups.load(self._index.layout_of(self._worker))
        self._describe()

    def _tiers(self) -> list[str]:
        return list(self.named_tiers | {GPU_TIER, "cpu"})

    def _place(self, medium: str | None, group: int | None) -> Place | None:
        """Where the blocks of an event are; None if there are too many places already."""
        place = self._places.get((medium, group))
        if place is None:
            place = Place(tier_of(medium), group or 0)
            known = set(self._places.values())
            if place.group < 0 or (place not in known and len(known) >= _MOST_PLACES):
                return None
            self.trust.classes.add(class_of(place.tier))
            if len(self._places) < _MOST_MEDIA:  # media come off the wire
                self._places[medium, group] = place
        return place

    def _skip(self, reason: str, blocks: int, place: Place) -> None:
        """Blocks in `place` are not understood, and never will be."""
        if blocks:
            self.counts.skipped[reason] += blocks
            if place is not _NOWHERE:
                self.trust.downgrade(
                    TrustState.PARTIAL, reason, [class_of(place.tier)], mendable=False
                )

    def _contradicts(self, place: Place) -> None:
        """The event cannot be, if all we believe is so."""
        if self._count_copies and self.trust.is_exact(class_of(place.tier)):
            self.counts.skipped["contradictions"] += 1
            self.trust.downgrade(TrustState.DEGRADED, "contradiction", EVERYWHERE)

    # BlockStored

    def _store(self, event: BlockStored) -> None:
        hashes, size = event.block_hashes, event.block_size
        place = self._place(event.medium, event.group_idx)
        if place is None:
            self.counts.skipped["too_many_places"] += len(hashes)
            self.trust.downgrade(TrustState.PARTIAL, "too_many_places", mendable=False)
            return
        group = self.groups.get(place.group)
        attention = Attention.MAIN if group is None else group.attention
        if not hashes or attention is Attention.IGNORED:
            self.counts.skipped["ignored_group"] += len(hashes)
            return
        self._check_extras(event)
        is_dense = size > 0 and len(hashes) * size == len(event.token_ids) > 0
        on_gpu = place.tier == GPU_TIER
        if not is_dense or (not on_gpu and self._resolves_all(hashes)):
            # Only the hashes can be relied on: a group may name a few of its blocks, and an offload
            # tier's tokens come without salt and images.
            if self._store_known(place, event) and on_gpu and event.token_ids:
                self._sparse.append(event)
        elif attention is not Attention.MAIN and not self._resolves_parent(event):
            self._store_known(place, event)
        elif event.lora_name is None and event.lora_id is not None:
            self._skip("unnamed_adapter", len(hashes), place)
        elif on_gpu and group is not None and size != group.block_size:
            self._store_part(event, place)
        elif size % self.groups.key_block_size or size > _MOST_SPAN * self.groups.key_block_size:
            self._skip("block_size_mismatch", len(hashes), place)
        else:
            if on_gpu:
                self.trust.classes.count_gpu_stores()
            self._store_dense(event, place)

    def _check_extras(self, event: BlockStored) -> None:
        if not event.tells_extras and self.extra_strings is not ExtraStrings.NONE:
            self.trust.mark_extras_not_sent()

    def _store_dense(self, event: BlockStored, place: Place) -> None:
        if self._resolves_parent(event):
            learned = self._index_blocks(event, place)
            if self.orphans:
                self._index_waiting_children(learned)
        else:
            self._orphan(event, place)

    def _store_part(self, event: BlockStored, place: Place) -> None:
        """Blocks shorter than their group's: parts of one, or of another cache."""
        if event.block_size % self.groups.key_block_size == 0 and self._resolves_parent(event):
            self._store_dense(event, place)
            return
        self.counts.skipped["other_cache"] += len(event.block_hashes)
        for name in event.block_hashes:
            if len(self._other_cache) < _MOST_FOREIGN or (place, name) in self._other_cache:
                self._other_cache[place, name] = self._other_cache.get((place, name), 0) + 1

    def _resolves_all(self, hashes: Hashes) -> bool:
        return all(self._resolve(EngineHash(engine_hash)) is not None for engine_hash in hashes)

    def _resolve(self, engine_hash: EngineHash) -> BlockKey | None:
        return self._index.key_of(self._worker, engine_hash)

    def _resolves_parent(self, event: BlockStored) -> bool:
        parent = event.parent_block_hash
        return parent is None or self._resolve(EngineHash(parent)) is not None

    def _store_known(self, place: Place, event: BlockStored) -> bool:
        """Blocks that are told by their hashes alone; whether some hashes are not known."""
        return self._add_copies(place, event.block_hashes, new_copies=event.origin != _REUSED)

    def _add_copies(self, place: Place, hashes: Hashes, *, new_copies: bool = True) -> bool:
        group = self.groups.get(place.group)
        most = 0 if group is None else group.block_size // self.groups.key_block_size
        if not self._index.store_known(
            self._worker, place, hashes, new_copies=new_copies, most=most
        ):
            return False
        unknown = [h for h in map(EngineHash, hashes) if self._resolve(h) is None]
        kept = sum(self.orphans.add_copy(engine_hash, place) for engine_hash in unknown)
        self._skip("unknown_hash", len(unknown) - kept, place)
        self.trust.set_orphans(waiting=bool(self.orphans))
        return True

    def _index_blocks(self, event: BlockStored, place: Place) -> Hashes:
        """Blocks with tokens after a known parent; returns those that were understood."""
        hashes, tokens = event.block_hashes, event.token_ids
        blocks, offsets, understood, reason = parse_extra_keys(event, self.extra_strings)
        span = event.block_size // self.groups.key_block_size
        extras = None
        if blocks is not None and span > 1:
            extras, placed = spread_extras(blocks, offsets, span, self.groups.key_block_size)
            if placed < understood:
                understood, reason = placed, "images_in_wide_block"
        elif blocks is not None:
            extras = [of_block or None for of_block in blocks]
        if understood < len(hashes):
            self._skip(reason, len(hashes) - understood, place)
            hashes, tokens = hashes[:understood], tokens[: understood * event.block_size]
        if hashes:
            self.resolved = True
            keys = self._scheme.keys(self._parent_key(event), tokens, extras)
            new_copies = event.origin != _REUSED
            self._index.store(self._worker, place, hashes, keys, new_copies=new_copies)
        return hashes

    def _parent_key(self, event: BlockStored) -> BlockKey:
        parent = event.parent_block_hash
        key = None if parent is None else self._resolve(EngineHash(parent))
        return self._scheme.root(event.lora_name) if key is None else key

    def _find_positions(self, event: BlockStored) -> None:
        """Learn from an event with fewer hashes than blocks what those not known stand for."""
        hashes, size = event.block_hashes, event.block_size
        keys = {h: self._resolve(EngineHash(h)) for h in hashes}
        unit = self.groups.key_block_size
        if size <= 0 or size % unit or all(k is not None for k in keys.values()):
            return
        if not self._resolves_parent(event) or len(event.token_ids) % size:
            return
        span = size // unit
        all_keys = self._scheme.keys(self._parent_key(event), event.token_ids)
        found = positions_of(hashes, keys, all_keys[span - 1 :: span])
        for engine_hash, at in found.items():
            self._learn_meanings(array("Q", [engine_hash]), all_keys[at * span : (at + 1) * span])

    def _learn_meanings(self, hashes: Hashes, keys: array[int]) -> None:
        """These hashes stand for these blocks, which are held nowhere for that."""
        self._index.store(self._worker, _NOWHERE, hashes, keys)
        self._index.remove(self._worker, _NOWHERE, hashes)
        self._index_waiting_children(hashes)

    # Blocks that wait for others

    def _orphan(self, event: BlockStored, place: Place) -> None:
        if place.tier == GPU_TIER and not self.groups.has_partial_blocks:
            self._contradicts(place)
        parent = EngineHash(event.parent_block_hash or 0)
        dropped, refused = self.orphans.add_event(event, parent, place)
        self._skip("unknown_parent", dropped + refused, place)
        self.trust.set_orphans(waiting=bool(self.orphans))

    def _index_waiting_children(self, learned: Hashes) -> None:
        """`learned` are known now, and may have been waited for."""
        ready = [learned]
        while ready:
            hashes = ready.pop()
            for engine_hash, place, copies in self.orphans.pop_copies(hashes):
                for _ in range(copies):
                    self._add_copies(place, array("Q", [engine_hash]))
            for event in self.orphans.pop_children(hashes):
                names = self._index_blocks(event, _NOWHERE)
                self._index.remove(self._worker, _NOWHERE, names)
                ready.append(names)
        self.trust.set_orphans(waiting=bool(self.orphans))

    # BlockRemoved, AllBlocksCleared

    def _remove(self, event: BlockRemoved) -> None:
        place = self._place(event.medium, event.group_idx)
        group = None if place is None else self.groups.get(place.group)
        if place is None or (group is not None and group.attention is Attention.IGNORED):
            return
        hashes = self._without_waiting(event, place)
        unknown = self._index.remove(self._worker, place, hashes)
        if event.remaining_copy_counts is not None:
            most = event.remaining_copy_counts
            self._index.limit_copies(self._worker, place, event.block_hashes, most)
        if unknown:
            self.counts.skipped["not_held"] += unknown
            self._contradicts(place)

    def _without_waiting(self, event: BlockRemoved, place: Place) -> Hashes:
        """The hashes of an event that are neither orphans nor of another cache."""
        hashes, counts = event.block_hashes, event.remaining_copy_counts
        if not self.orphans and not self._other_cache:
            return hashes
        remaining = array("Q")
        for at, name in enumerate(hashes):
            most = None if counts is None else counts[at]
            if not (
                self.orphans.remove_copy(EngineHash(name), place, most)
                or self._remove_foreign(place, name)
            ):
                remaining.append(name)
        self.trust.set_orphans(waiting=bool(self.orphans))
        return remaining

    def _remove_foreign(self, place: Place, name: int) -> bool:
        copies = self._other_cache.pop((place, name), 0)
        if copies > 1:
            self._other_cache[place, name] = copies - 1
        return bool(copies)

    def _clear(self) -> None:
        self._index.clear(self._worker, (GPU_TIER,))
        self._other_cache.clear()
        self.orphans.clear((GPU_TIER,))
        self.trust.set_orphans(waiting=bool(self.orphans))
        self.trust.on_gpu_cleared()
