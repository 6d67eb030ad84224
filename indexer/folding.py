"""Engine blocks smaller than ours: several of them make one block of ours.

They arrive singly and leave singly, and one engine block may be part of several of our blocks (the
same beginning, different ends). A block of ours is named by its last engine block's hash, and held
in a place only while all its engine blocks are held there.
"""

from __future__ import annotations

import itertools
from array import array
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from indexer.types import BlockKey, EngineHash

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from indexer.extras import Extra
    from indexer.scheme import KeyScheme
    from indexer.types import Hashes, Place, Tokens

_MOST_TRIES = 16  # how many of the oldest unheld parts are considered to make room

PlacedExtra = tuple[int | None, "Extra"]
"""An extra with its offset from the first token of our block, if it is known."""


@dataclass(slots=True)
class _Part:
    """One engine block: what it and those before it in the same block of ours say.

    base: the key before our block. hashes: engine hashes up to this one. key: our block's key, if
    this engine block completes it. blocks: hashes of the engine blocks that complete a block of
    ours of which this one is a part.
    """

    base: BlockKey
    hashes: tuple[EngineHash, ...]
    tokens: Tokens
    extras: tuple[PlacedExtra, ...]
    key: BlockKey | None = None
    blocks: set[EngineHash] = field(default_factory=set)


class BlockFolding:
    """The engine blocks of one worker, and which of our blocks they complete.

    most_parts: how many engine blocks are remembered at most; unheld ones make room first.
    """

    def __init__(self, scheme: KeyScheme, count_copies: bool, most_parts: int = 1_000_000) -> None:
        self._scheme = scheme
        self._count_copies = count_copies
        self._most_parts = most_parts
        self._parts: dict[EngineHash, _Part] = {}
        self._unheld: OrderedDict[EngineHash, None] = OrderedDict()
        self._copies: dict[Place, dict[EngineHash, int]] = {}

    def learn(
        self,
        parent: EngineHash | None,
        root: BlockKey,
        hashes: Hashes,
        tokens: Tokens,
        extras: Sequence[Sequence[PlacedExtra]] | None,
    ) -> int:
        """Remember what engine blocks mean; returns for how many of `hashes` that was possible.

        It is not for those after an unknown `parent`, nor for those there is no room for. The
        extras' offsets are relative to each engine block.
        """
        size = len(tokens) // len(hashes)
        before = None if parent is None else self._parts.get(parent)
        if parent is not None and before is None:
            return 0
        for index, engine_hash in enumerate(map(EngineHash, hashes)):
            part = self._parts.get(engine_hash)
            if part is None:
                if not self._has_room():
                    return index
                chunk = tokens[index * size : (index + 1) * size]
                part = self._extend(
                    before, root, engine_hash, chunk, extras[index] if extras else ()
                )
                self._parts[engine_hash] = part
                self._unheld[engine_hash] = None
                self._complete(part, engine_hash)
            before = part
        return len(hashes)

    def _extend(
        self,
        before: _Part | None,
        root: BlockKey,
        engine_hash: EngineHash,
        tokens: Tokens,
        extras: Sequence[PlacedExtra],
    ) -> _Part:
        if before is None or before.key is not None:
            base = root if before is None or before.key is None else before.key
            return _Part(base, (engine_hash,), tokens, tuple(extras))
        start = len(before.tokens)
        merged = list(before.extras)
        for offset, extra in extras:
            placed = (None if offset is None else start + offset, extra)
            if extra[0] != "Hash" or placed not in merged:
                merged.append(placed)
        return _Part(
            before.base, (*before.hashes, engine_hash), before.tokens + tokens, tuple(merged)
        )

    def _complete(self, part: _Part, engine_hash: EngineHash) -> None:
        if len(part.tokens) < self._scheme.block_size:
            return
        images = sorted(
            (placed for placed in part.extras if placed[1][0] == "Hash"),
            key=lambda placed: placed[0] or 0,
        )
        others = [placed for placed in part.extras if placed[1][0] != "Hash"]
        extras = tuple(extra for _, extra in [*images, *others])
        part.key = BlockKey(self._scheme.keys(part.base, part.tokens, [extras])[0])
        for member in part.hashes:
            owner = self._parts.get(member)
            if owner is not None:
                owner.blocks.add(engine_hash)

    def _has_room(self) -> bool:
        if len(self._parts) < self._most_parts:
            return True
        for engine_hash in list(itertools.islice(self._unheld, _MOST_TRIES)):
            blocks = self._parts[engine_hash].blocks
            if any(name in self._parts and name not in self._unheld for name in blocks):
                continue  # a held part relies on it
            for name in {engine_hash, *blocks}:
                self._unheld.pop(name, None)
                self._parts.pop(name, None)
            return True
        return False

    def store(self, place: Place, hashes: Hashes) -> tuple[Hashes, array[int], Hashes]:
        """One more copy of each engine block in `place`.

        Returns our blocks that are held there now and were not before (names and keys), and those
        of `hashes` that are unknown.
        """
        copies = self._copies.setdefault(place, {})
        names, keys, unknown = array("Q"), array("Q"), array("Q")
        for engine_hash in map(EngineHash, hashes):
            part = self._parts.get(engine_hash)
            if part is None:
                unknown.append(engine_hash)
                continue
            held = copies.get(engine_hash, 0)
            copies[engine_hash] = held + 1 if self._count_copies else 1
            if held:
                continue
            self._unheld.pop(engine_hash, None)
            for name in part.blocks:
                block = self._parts.get(name)
                if block is not None and block.key is not None and _held(block, copies):
                    names.append(name)
                    keys.append(block.key)
        return names, keys, unknown

    def remove(self, place: Place, hashes: Hashes) -> tuple[Hashes, Hashes]:
        """One copy less of each; returns our blocks no longer held there, and unheld `hashes`."""
        copies = self._copies.get(place, {})
        names, unknown = array("Q"), array("Q")
        for engine_hash in map(EngineHash, hashes):
            held = copies.get(engine_hash, 0)
            if held > 1:
                copies[engine_hash] = held - 1
                continue
            if not held:
                unknown.append(engine_hash)
                continue
            part = self._parts[engine_hash]
            for name in part.blocks:
                block = self._parts.get(name)
                if block is not None and _held(block, copies):
                    names.append(name)
            del copies[engine_hash]
            self._set_unheld(engine_hash)
        return names, unknown

    def clear(self, tiers: Collection[str]) -> None:
        """The worker's engine blocks in `tiers` are gone; what they mean is remembered."""
        for place in [place for place in self._copies if place.tier in tiers]:
            for engine_hash in self._copies.pop(place):
                self._set_unheld(engine_hash)

    def _set_unheld(self, engine_hash: EngineHash) -> None:
        if not any(engine_hash in copies for copies in self._copies.values()):
            self._unheld[engine_hash] = None

    def __contains__(self, engine_hash: EngineHash) -> bool:
        return engine_hash in self._parts

    def __len__(self) -> int:
        return len(self._parts)


def _held(block: _Part, copies: dict[EngineHash, int]) -> bool:
    return all(engine_hash in copies for engine_hash in block.hashes)
