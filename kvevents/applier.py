"""Event -> index write: what each event of a worker does to the index.

Nothing is dropped silently: `Tally` counts, per worker, applied events by kind, and by reason every
event and every block that could not be applied.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from indexer import BlockKey, EngineHash, Place
from indexer.folding import BlockFolding
from kvevents.events import AllBlocksCleared, BlockRemoved, BlockStored
from kvevents.extra_keys import untangle
from kvevents.source import ExtraStrings

if TYPE_CHECKING:
    from indexer import Extra, Hashes, Index, KeyScheme, Worker
    from kvevents.events import Event

GPU_TIER = "gpu"
_MOST_PLACES = 256
_TIER_NAMES = {"cpu_pinned": "cpu"}


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

    The worker must have joined the index.
    """

    def __init__(
        self,
        index: Index,
        worker: Worker,
        scheme: KeyScheme,
        extra_strings: ExtraStrings = ExtraStrings.AUTO,
        count_copies: bool = True,
    ) -> None:
        self._index = index
        self._worker = worker
        self._scheme = scheme
        self._extra_strings = extra_strings
        self._count_copies = count_copies
        self._folding: BlockFolding | None = None
        self._places: dict[tuple[str | None, int | None], Place] = {}
        self.tally = Tally()
        self.engine_block_size: int | None = None

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

    def _place(self, medium: str | None, group: int | None) -> Place:
        place = self._places.get((medium, group))
        if place is None:
            place = Place(tier_of(medium), group or 0)
            if len(self._places) < _MOST_PLACES:  # media come off the wire
                self._places[medium, group] = place
        return place

    def _skip(self, reason: str, blocks: int) -> None:
        if blocks:
            self.tally.skipped[reason] += blocks

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
            self._skip("unnamed_adapter", len(hashes))
            return
        if place.tier == GPU_TIER:
            self.engine_block_size = size
        if size == self._scheme.block_size or size % self._scheme.block_size == 0:
            self._store_whole(event, place)
        elif self._scheme.block_size % size == 0:
            self._store_parts(event, place)
        else:
            self._skip("block_size_mismatch", len(hashes))

    def _knows(self, hashes: Hashes) -> bool:
        known = [EngineHash(engine_hash) for engine_hash in hashes]
        if self._folding is not None and all(engine_hash in self._folding for engine_hash in known):
            return True
        return all(self._index.key_of(self._worker, h) is not None for h in known)

    def _store_known(self, place: Place, hashes: Hashes) -> None:
        if self._folding is not None:
            names, keys, hashes = self._folding.store(place, hashes)
            self._index.store(self._worker, place, names, keys)
        self._skip("unknown_hash", self._index.store_known(self._worker, place, hashes))

    def _store_whole(self, event: BlockStored, place: Place) -> None:
        """Engine blocks of our size or of a multiple of it."""
        hashes, tokens = event.block_hashes, event.token_ids
        parent = self._parent_key(event)
        if parent is None:
            self._skip("unknown_parent", len(hashes))
            return
        extras, _, understood, reason = untangle(event, self._extra_strings)
        span = event.block_size // self._scheme.block_size
        if span > 1 and extras is not None:
            extras, decidable = _spread(extras, span)
            if decidable < understood:
                understood, reason = decidable, "images_in_wide_block"
        if understood < len(hashes):
            self._skip(reason, len(hashes) - understood)
            hashes, tokens = hashes[:understood], tokens[: understood * event.block_size]
        if hashes:
            keys = self._scheme.keys(parent, tokens, extras)
            self._index.store(self._worker, place, hashes, keys)

    def _parent_key(self, event: BlockStored) -> BlockKey | None:
        if event.parent_block_hash is None:
            return self._scheme.root(event.lora_name)
        return self._index.key_of(self._worker, EngineHash(event.parent_block_hash))

    def _store_parts(self, event: BlockStored, place: Place) -> None:
        """Engine blocks smaller than ours."""
        if self._folding is None:
            self._folding = BlockFolding(self._scheme, self._count_copies)
        found = untangle(event, self._extra_strings)
        hashes = event.block_hashes[: found.understood]
        self._skip(found.reason, len(event.block_hashes) - len(hashes))
        if not hashes:
            return
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
        self._skip("unknown_parent", len(hashes) - learned)
        self._store_known(place, hashes[:learned])

    # BlockRemoved, AllBlocksCleared

    def _remove(self, event: BlockRemoved) -> None:
        place = self._place(event.medium, event.group_idx)
        hashes = event.block_hashes
        if self._folding is not None:
            names, hashes = self._folding.remove(place, hashes)
            self._index.remove(self._worker, place, names)
        self._skip("not_held", self._index.remove(self._worker, place, hashes))

    def _clear(self) -> None:
        self._index.clear(self._worker, (GPU_TIER,))
        if self._folding is not None:
            self._folding.clear((GPU_TIER,))


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
