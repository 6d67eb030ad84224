"""Writes one worker's blocks to the index, and learns what the worker's engine hashes mean.

An engine hash gets its meaning, a block key, from an event that has tokens for each of its hashes.
The cache groups of a worker share their hashes. So a group that announces only some of its blocks,
or an offload tier that announces bare hashes, refers to blocks by hash alone; a hash without a
known meaning waits as an orphan.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from indexer import BlockKey, EngineHash, Place, TrustState
from kvevents.applying.block_parts import find_positions, read_extras
from kvevents.applying.event_counts import EventCounts
from kvevents.applying.pieces import EVENT_WEIGHT, PIECE_KEYS, hash_count
from kvevents.applying.roots import SeenRoots
from kvevents.trust import Downgrade, ExtrasNotSent, GpuCleared, OrphansChanged
from kvevents.wire import GPU_TIER, ExtraStrings, TierClass, class_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from indexer import Extra, Hashes, Index, KeyScheme, Worker
    from kvevents.applying.cache_groups import CacheGroups
    from kvevents.applying.orphans import Orphans
    from kvevents.trust import Trust, TrustChange
    from kvevents.wire import BlockStored

_REUSED = "REUSED"
_SCRATCH_PLACE = Place(GPU_TIER, -1)  # in no score: to store here teaches what hashes mean


class IndexWriter:
    """One worker's writes. The worker must have joined the index.

    Attributes:
        extra_strings: how plain strings among an event's extra keys are read.
        orphans: blocks that wait for their parents or for their meaning.
        counts: what happened to the events so far.
        count_gpu_stores: counts an event that stores blocks on a GPU; see `ClassesInUse`.
        has_resolved: whether the meaning of any engine hash was ever learned.
        roots: what sequences have begun with.
    """

    def __init__(
        self,
        index: Index,
        worker: Worker,
        scheme: KeyScheme,
        trust: Trust,
        orphans: Orphans,
        groups: CacheGroups,
        extra_strings: ExtraStrings,
        *,
        count_copies: bool,
    ) -> None:
        self._index = index
        self._worker = worker
        self._trust = trust  # only read here
        self._groups = groups
        self._count_copies = count_copies
        self._scheme = scheme
        self.extra_strings = extra_strings
        self.orphans = orphans
        self.counts, self.roots = EventCounts(), SeenRoots()
        self.count_gpu_stores = trust.classes.count_gpu_stores
        self._trust_changes: list[TrustChange] = []
        self.has_resolved = False
        self._had_orphans = False
        self._known_keys: tuple[BlockKey, array[int], array[int]] | None = None
        self._adopted: list[Iterator[BlockStored]] = []  # orphans whose parents have come
        self._has_reported_extras = False

    def use_key_size(self, block_size: int) -> None:
        """Make keys of blocks of so many tokens from now on."""
        self._scheme = self._scheme.sized(block_size)
        self._known_keys = None

    def on_restored(self) -> None:
        """The index holds meanings that were learned before."""
        self.has_resolved = True

    # Trust

    def report(self, change: TrustChange) -> None:
        """Leave a change of the worker's trust for the stream."""
        self._trust_changes.append(change)

    def take_trust_changes(self) -> Sequence[TrustChange]:
        """The changes of the worker's trust since the last call, in order."""
        changes = self._trust_changes
        if changes:
            self._trust_changes = []
        return changes

    def skip(self, reason: str, blocks: int, place: Place) -> None:
        """Count blocks in `place` that are not understood, and never will be."""
        if blocks:
            self.counts.skipped[reason] += blocks
            if place is not _SCRATCH_PLACE:
                self.downgrade(TrustState.PARTIAL, reason, place, recoverable=False)

    def downgrade(
        self, state: TrustState, reason: str, place: Place, *, recoverable: bool = True
    ) -> None:
        """Downgrade the trust in tiers of the class that `place` is in."""
        classes = [class_of(place.tier)]
        self._trust_changes.append(Downgrade(state, reason, classes, recoverable))

    def _is_exact(self, tier_class: TierClass) -> bool:
        """Whether a class of tiers is exact, with the changes that are not yet followed."""
        for change in reversed(self._trust_changes):
            if isinstance(change, Downgrade) and tier_class in change.classes:
                return False
            if isinstance(change, GpuCleared) and tier_class is TierClass.GPU:
                return True
        return self._trust.is_exact(tier_class)

    def contradict(self, place: Place) -> None:
        """Handle an event that is impossible if everything claimed of the worker is true."""
        if self._count_copies and self._is_exact(class_of(place.tier)):
            self.counts.skipped["contradictions"] += 1
            self._trust_changes.append(Downgrade(TrustState.DEGRADED, "contradiction"))

    def clear_orphans(self, tiers: Collection[str] | None = None) -> None:
        """Drop the orphans in `tiers`, or all of them."""
        self.orphans.clear(tiers)
        self.report_orphans()

    def report_orphans(self) -> None:
        """Tell the stream if blocks have begun, or have ceased, to wait."""
        has_orphans = bool(self.orphans)
        if has_orphans != self._had_orphans:
            self._had_orphans = has_orphans
            self._trust_changes.append(OrphansChanged(has_orphans))

    def check_extras(self, event: BlockStored) -> None:
        """Tell the stream, once, of an event that has no room for salts and images."""
        is_needed = self.extra_strings is not ExtraStrings.NONE
        if not event.carries_extras and is_needed and not self._has_reported_extras:
            self._has_reported_extras = True
            self._trust_changes.append(ExtrasNotSent())

    # What hashes mean

    def resolve(self, engine_hash: EngineHash) -> BlockKey | None:
        """The key of the block that the engine hash stands for, None if it is not known."""
        return self._index.key_of(self._worker, engine_hash)

    def resolves_parent(self, event: BlockStored) -> bool:
        """Whether the event's blocks begin a sequence, or continue a known block."""
        return self.parent_key(event) is not None

    def parent_key(self, event: BlockStored) -> BlockKey | None:
        """The key of the block before an event's first one, None if it is not known."""
        parent = event.parent_block_hash
        if parent is None:
            self.roots.add(event)
            return self._scheme.root(event.lora_name)
        return self._index.key_of(self._worker, EngineHash(parent))

    def learn_from_sparse(self, event: BlockStored) -> None:
        """Learn meanings from an event that has tokens, but hashes of some of its blocks only."""
        hashes, size = event.block_hashes, event.block_size
        keys = {h: self.resolve(EngineHash(h)) for h in hashes}
        unit = self._groups.key_block_size
        if size <= 0 or size % unit or all(key is not None for key in keys.values()):
            return
        parent = self.parent_key(event)
        if parent is None or len(event.token_ids) % size:
            return
        span = size // unit
        all_keys = self._scheme.keys(parent, event.token_ids)
        positions = find_positions(hashes, keys, all_keys[span - 1 :: span])
        for engine_hash, position in positions.items():
            self._learn(
                array("Q", [engine_hash]), all_keys[position * span : (position + 1) * span]
            )

    def _learn(self, hashes: Hashes, keys: array[int]) -> None:
        """Learn that hashes stand for blocks, without claiming that the worker holds them."""
        refused = self._index.store(self._worker, _SCRATCH_PLACE, hashes, keys)
        self.skip("too_many_meanings", refused, _SCRATCH_PLACE)
        self._index.remove(self._worker, _SCRATCH_PLACE, hashes)
        self._index_waiting_children(hashes)

    # Blocks

    def store_known(self, event: BlockStored, place: Place) -> bool:
        """Add a copy of each block of an event by hash alone; returns whether some are unknown."""
        return self._add_copies(place, event.block_hashes, new_copies=event.origin != _REUSED)

    def _add_copies(self, place: Place, hashes: Hashes, *, new_copies: bool = True) -> bool:
        group = self._groups.get(place.group)
        limit = 0 if group is None else group.block_size // self._groups.key_block_size
        if not self._index.store_known(
            self._worker, place, hashes, new_copies=new_copies, last_blocks=limit
        ):
            return False
        unknown = [h for h in map(EngineHash, hashes) if self.resolve(h) is None]
        kept = sum(self.orphans.add_copy(engine_hash, place) for engine_hash in unknown)
        self.skip("unknown_hash", len(unknown) - kept, place)
        self.report_orphans()
        return True

    def store_with_tokens(self, event: BlockStored, place: Place) -> None:
        """Store blocks that have tokens, or keep them until their parent is known."""
        self.store_after(self.parent_key(event), event, place)

    def store_after(self, parent: BlockKey | None, event: BlockStored, place: Place) -> None:
        """Do as `store_with_tokens`; parent: what `parent_key` returns."""
        if parent is None:
            self._keep_orphan(event, place)
            return
        hashes = self._index_blocks(event, place, parent)
        if self.orphans:
            self._index_waiting_children(hashes)

    def _index_blocks(self, event: BlockStored, place: Place, parent: BlockKey) -> Hashes:
        """Store the blocks after a known parent; returns the hashes that were understood."""
        hashes, tokens, extras = event.block_hashes, event.token_ids, None
        if event.cache_salt is not None or (event.extra_keys and any(event.extra_keys)):
            unit = self._groups.key_block_size
            understood, reason, extras = read_extras(event, self.extra_strings, unit)
            self.roots.add_extras(event, extras)
            if understood < len(hashes):
                self.skip(reason, len(hashes) - understood, place)
                hashes, tokens = hashes[:understood], tokens[: understood * event.block_size]
        if hashes:
            self.has_resolved = True
            keys = self._keys_of(parent, tokens, extras)
            new_copies = event.origin != _REUSED
            refused = self._index.store(self._worker, place, hashes, keys, new_copies=new_copies)
            if refused:
                self.skip("too_many_meanings", refused, place)
        return hashes

    def _keys_of(
        self,
        parent: BlockKey,
        tokens: array[int],
        extras: list[tuple[Extra, ...] | None] | None,
    ) -> array[int]:
        """The keys of blocks; equal lists of tokens in one batch are the same array."""
        known = self._known_keys
        if known is not None and extras is None and tokens is known[1] and parent == known[0]:
            return known[2]
        keys = self._scheme.keys(parent, tokens, extras)
        self._known_keys = None if extras else (parent, tokens, keys)
        return keys

    def on_batch_end(self) -> None:
        """A batch was applied: what its events had in common is not needed any more."""
        self._known_keys = None

    def _keep_orphan(self, event: BlockStored, place: Place) -> None:
        if place.tier == GPU_TIER and not self._groups.has_partial_blocks:
            # An engine announces a block's parent before the block, unless it announces parts.
            self.contradict(place)
        parent = EngineHash(event.parent_block_hash or 0)
        dropped, refused = self.orphans.add_event(event, parent, place)
        self.skip("unknown_parent", dropped + refused, place)
        self.report_orphans()

    def _index_waiting_children(self, hashes: Hashes) -> None:
        """Store some of the orphans that wait for these hashes; see `go_on`."""
        self._adopt(hashes)
        self.go_on()

    @property
    def has_adopted(self) -> bool:
        """Whether there may be orphans whose parents have come: any number may have waited."""
        return bool(self._adopted)

    def go_on(self) -> None:
        """Store some of the orphans whose parents have come, then those that wait for them."""
        room = PIECE_KEYS
        while self._adopted and room > 0:
            event = next(self._adopted[-1], None)
            if event is None:
                self._adopted.pop()
                continue
            room -= EVENT_WEIGHT + hash_count(event) * self._groups.span
            parent = self.parent_key(event)
            if parent is None:  # evicted, or refused
                self.skip("unknown_parent", len(event.block_hashes), _SCRATCH_PLACE)
                continue
            children = self._index_blocks(event, _SCRATCH_PLACE, parent)
            self._index.remove(self._worker, _SCRATCH_PLACE, children)
            self._adopt(children)
        self.report_orphans()

    def _adopt(self, hashes: Hashes) -> None:
        """Store the copies that wait for the meaning of these hashes, and then their children."""
        for engine_hash, place, copies in self.orphans.pop_copies(hashes):
            self._add_copies(place, array("Q", [engine_hash]) * copies)
        if self.orphans:
            self._adopted.append(self.orphans.pop_children(hashes))
