"""Event -> index write: what each event of a worker does to the index.

Nothing is dropped silently: `Tally` counts, per worker, applied events by kind, and by reason every
event and every block that could not be applied; and the worker's trust is told of each.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from indexer import BlockKey, EngineHash, Place
from indexer.folding import BlockFolding
from kvevents.events import AllBlocksCleared, BlockRemoved, BlockStored
from kvevents.extra_keys import untangle
from kvevents.source import ExtraStrings
from kvevents.trust import EVERYWHERE, State, TierClass, class_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from indexer import Extra, Hashes, Index, KeyScheme, Worker
    from kvevents.events import Event
    from kvevents.orphans import Orphans
    from kvevents.trust import Trust

GPU_TIER = "gpu"
_MOST_PLACES = 256
_TIER_NAMES = {"cpu_pinned": "cpu"}
_NOWHERE = Place(GPU_TIER, -1)  # a group that no engine has, and no score counts


@dataclass(slots=True)
class Tally:
    """What became of a worker's events.

    events: applied ones by type. skipped: events and blocks not applied, by reason (each block
    counts on its own where an event was applied in part).
    """

    events: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)


def tier_of(medium: str | None) -> str:
    """The tier of an event's medium: lower case, the GPU where none is given."""
    if not medium:
        return GPU_TIER
    tier = medium.lower()
    return _TIER_NAMES.get(tier, tier)


class Applier:
    """Applies one worker's events to the index, in the order in which they are given.

    The worker must have joined the index. trust: told of what was not understood, and of what
    contradicts that everything is known. engine_block_size: as announced last, None before that.
    resolved: whether any block was ever understood.
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
    ) -> None:
        self._index = index
        self._worker = worker
        self._scheme = scheme
        self.trust = trust
        self.orphans = orphans
        self.extra_strings = extra_strings
        self._count_copies = count_copies
        self._folding: BlockFolding | None = None
        self._places: dict[tuple[str | None, int | None], Place] = {}
        self.tally = Tally()
        self.engine_block_size: int | None = None
        self.resolved = False

    def apply(self, event: Event) -> None:
        """Apply one event, or count why not."""
        match event:
            case BlockStored():
                self._store(event)
            case BlockRemoved():
                self._remove(event)
            case AllBlocksCleared():
                self._clear()
        self.tally.events[type(event).__name__] += 1

    def restart(self) -> None:
        """Another engine is in the worker's place: what dies with the process is gone."""
        lost = [tier for tier in self._tiers() if class_of(tier) is not TierClass.STORAGE]
        if self._folding is not None:  # its parts do not outlive the engine's hashes
            lost = self._tiers()
            self._folding = None
        self._index.restart(self._worker, lost)
        self.orphans.clear()

    def forget(self, classes: list[TierClass]) -> None:
        """Claim nothing any more in tiers of these classes."""
        tiers = [tier for tier in self._tiers() if class_of(tier) in classes]
        self._index.clear(self._worker, tiers)
        self.orphans.clear(tiers)
        if self._folding is not None:
            self._folding.clear(tiers)

    @property
    def named_tiers(self) -> set[str]:
        """The tiers that the worker's events have named."""
        return {place.tier for place in self._places.values()}

    def use(self, tiers: Iterable[str]) -> None:
        """The worker has blocks in these tiers already."""
        self.resolved = True
        for tier in tiers:
            self._place(tier, None)

    @property
    def can_dump(self) -> bool:
        """Whether the index alone is all there is to know."""
        return self._folding is None

    def _tiers(self) -> list[str]:
        return list(self.named_tiers | {GPU_TIER, "cpu"})

    def _place(self, medium: str | None, group: int | None) -> Place:
        place = self._places.get((medium, group))
        if place is None:
            place = Place(tier_of(medium), group or 0)
            self.trust.classes.use(class_of(place.tier))
            if len(self._places) < _MOST_PLACES:  # media come off the wire
                self._places[medium, group] = place
        return place

    def _skip(self, reason: str, blocks: int, place: Place) -> None:
        """Blocks in `place` are not understood, and never will be."""
        if blocks:
            self.tally.skipped[reason] += blocks
            if place.group <= 0:
                self.trust.doubt(State.PARTIAL, reason, [class_of(place.tier)], mendable=False)

    def _contradicts(self, place: Place) -> None:
        """The event cannot be, if all we believe is so."""
        if not place.group and self._count_copies and self.trust.is_exact(class_of(place.tier)):
            self.tally.skipped["contradictions"] += 1
            self.trust.doubt(State.DEGRADED, "contradiction", EVERYWHERE)

    # BlockStored

    def _store(self, event: BlockStored) -> None:
        hashes = event.block_hashes
        place = self._place(event.medium, event.group_idx)
        if not hashes:
            return
        size = event.block_size
        shapeless = not event.token_ids or len(hashes) * size != len(event.token_ids)
        if shapeless or place.group or (place.tier != GPU_TIER and self._knows(hashes)):
            # Only the hashes can be relied on: a sliding-window group names a few of its blocks,
            # and an offload tier's tokens come without salt and images.
            self._store_known(place, hashes)
            return
        if event.lora_name is None and event.lora_id is not None:
            self._skip("unnamed_adapter", len(hashes), place)
            return
        if place.tier == GPU_TIER:
            self.engine_block_size = size
            self.trust.classes.stored_on_gpu()
        ours = self._scheme.block_size
        if size % ours and ours % size:
            self._skip("block_size_mismatch", len(hashes), place)
        elif self._knows_parent(event):
            learned = self._learn(event, place)
            if self.orphans:
                self._adopt(learned)
        else:
            self._orphan(event, place)

    def _knows(self, hashes: Hashes) -> bool:
        return all(self._means(EngineHash(engine_hash)) for engine_hash in hashes)

    def _means(self, engine_hash: EngineHash) -> bool:
        if self._folding is not None and engine_hash in self._folding:
            return True
        return self._index.key_of(self._worker, engine_hash) is not None

    def _knows_parent(self, event: BlockStored) -> bool:
        parent = event.parent_block_hash
        return parent is None or self._means(EngineHash(parent))

    def _store_known(self, place: Place, hashes: Hashes) -> None:
        """One more copy of blocks announced by their hashes alone."""
        if self._folding is not None:
            names, keys, hashes = self._folding.store(place, hashes)
            self._index.store(self._worker, place, names, keys)
        if not self._index.store_known(self._worker, place, hashes):
            return
        unknown = [h for h in map(EngineHash, hashes) if not self._means(h)]
        if place.group:
            self._skip("unknown_hash", len(unknown), place)
            return
        kept = sum(self.orphans.add(engine_hash, place) for engine_hash in unknown)
        self._skip("unknown_hash", len(unknown) - kept, place)
        self.trust.orphaned(waiting=bool(self.orphans))

    def _learn(self, event: BlockStored, place: Place) -> Hashes:
        """Blocks with tokens after a known parent; returns those that were understood."""
        if self._scheme.block_size > event.block_size:
            return self._learn_parts(event, place)
        hashes, tokens = event.block_hashes, event.token_ids
        extras, _, understood, reason = untangle(event, self.extra_strings)
        span = event.block_size // self._scheme.block_size
        if span > 1 and extras is not None:
            extras, decidable = _spread(extras, span)
            if decidable < understood:
                understood, reason = decidable, "images_in_wide_block"
        if understood < len(hashes):
            self._skip(reason, len(hashes) - understood, place)
            hashes, tokens = hashes[:understood], tokens[: understood * event.block_size]
        if hashes:
            self.resolved = True
            keys = self._scheme.keys(self._parent_key(event), tokens, extras)
            self._index.store(self._worker, place, hashes, keys)
        return hashes

    def _parent_key(self, event: BlockStored) -> BlockKey:
        parent = event.parent_block_hash
        key = None if parent is None else self._index.key_of(self._worker, EngineHash(parent))
        return self._scheme.root(event.lora_name) if key is None else key

    def _learn_parts(self, event: BlockStored, place: Place) -> Hashes:
        """Engine blocks smaller than ours."""
        if self._folding is None:
            self._folding = BlockFolding(self._scheme, self._count_copies)
        found = untangle(event, self.extra_strings)
        hashes = event.block_hashes[: found.understood]
        self._skip(found.reason, len(event.block_hashes) - len(hashes), place)
        if not hashes:
            return hashes
        parent = event.parent_block_hash
        extras = None
        if found.blocks is not None:
            offsets = found.offsets or [(None,) * len(block) for block in found.blocks]
            extras = [
                list(zip(where, block, strict=True))
                for where, block in zip(offsets, found.blocks, strict=True)
            ]
        learned = self._folding.learn(
            None if parent is None else EngineHash(parent),
            self._scheme.root(event.lora_name),
            hashes,
            event.token_ids[: len(hashes) * event.block_size],
            extras,
        )
        self.resolved = True
        self._skip("no_room_for_parts", len(hashes) - learned, place)
        self._store_known(place, hashes[:learned])
        return hashes[:learned]

    # Blocks that wait for others

    def _orphan(self, event: BlockStored, place: Place) -> None:
        if place.tier == GPU_TIER:
            self._contradicts(place)
        parent = EngineHash(event.parent_block_hash or 0)
        dropped, refused = self.orphans.keep(event, parent, place)
        self._skip("unknown_parent", dropped + refused, place)
        self.trust.orphaned(waiting=bool(self.orphans))

    def _adopt(self, learned: Hashes) -> None:
        """`learned` are known now, and may have been waited for."""
        ready = [learned]
        while ready:
            hashes = ready.pop()
            for engine_hash, place, copies in self.orphans.adopt(hashes):
                for _ in range(copies):
                    self._store_known(place, array("Q", [engine_hash]))
            for event in self.orphans.children(hashes):
                names = hashes = self._learn(event, _NOWHERE)
                if self._folding is not None:
                    names, _ = self._folding.remove(_NOWHERE, hashes)
                self._index.remove(self._worker, _NOWHERE, names)
                ready.append(hashes)
        self.trust.orphaned(waiting=bool(self.orphans))

    # BlockRemoved, AllBlocksCleared

    def _remove(self, event: BlockRemoved) -> None:
        place = self._place(event.medium, event.group_idx)
        hashes = event.block_hashes
        if self.orphans:
            hashes = array(
                "Q", [h for h in hashes if not self.orphans.remove(EngineHash(h), place)]
            )
            self.trust.orphaned(waiting=bool(self.orphans))
        if self._folding is not None:
            names, hashes = self._folding.remove(place, hashes)
            self._index.remove(self._worker, place, names)
        unknown = self._index.remove(self._worker, place, hashes)
        if unknown:
            self.tally.skipped["not_held"] += unknown
            self._contradicts(place)

    def _clear(self) -> None:
        self._index.clear(self._worker, (GPU_TIER,))
        if self._folding is not None:
            self._folding.clear((GPU_TIER,))
        self.orphans.clear((GPU_TIER,))
        self.trust.orphaned(waiting=bool(self.orphans))
        self.trust.cleared()


def _spread(extras: list[tuple[Extra, ...]], span: int) -> tuple[list[tuple[Extra, ...]], int]:
    """Extras of engine blocks, each of `span` of ours -> extras of our blocks.

    Only a salt can be placed (it belongs to the first block): which of our blocks an image or an
    embedding is in cannot be told. Returns also how many engine blocks come before one with such.
    """
    ours: list[tuple[Extra, ...]] = []
    for index, of_block in enumerate(extras):
        if any(kind != "Salt" for kind, _ in of_block):
            return ours, index
        ours += [of_block, *([()] * (span - 1))]
    return ours, len(extras)
