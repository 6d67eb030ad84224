"""Which blocks of a prompt each worker holds, one by one and not only as far as its prefix goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from indexer import Attention, Group

if TYPE_CHECKING:
    from array import array
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from indexer import CacheLayout, Holding, Inspection, Worker
    from service.explaining.asked import Turn

_KEYS_AT_ONCE = 8192


class HeldBlocks:
    """Who holds each block of a prompt, for blocks of one size."""

    def __init__(self, inspection: Inspection) -> None:
        self._inspection = inspection
        self._sets: dict[frozenset[Holding], int] = {}
        self._numbers: NDArray[np.uint32] = np.empty(0, np.uint32)
        self._by_worker: dict[Worker, dict[Holding, list[int]]] = {}

    async def look_up(self, model: str, keys: array[int], turn: Turn) -> None:
        """Find the holders of the blocks; others go first in between."""
        parts = [self._numbers]
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            holdings = self._inspection.holdings(model, keys[start : start + _KEYS_AT_ONCE])
            numbers = (self._sets.setdefault(each, len(self._sets)) for each in holdings)
            parts.append(np.fromiter(numbers, np.uint32, len(holdings)))
            await turn.pause()
        self._numbers = np.concatenate(parts)
        for holdings_of_set, number in self._sets.items():
            for holding in holdings_of_set:
                of_worker = self._by_worker.setdefault(holding.worker, {})
                of_worker.setdefault(holding, []).append(number)

    def __len__(self) -> int:
        return len(self._numbers)

    def by_group(self, worker: Worker, layout: CacheLayout) -> dict[int, NDArray[np.bool_]]:
        """Return for each cache group of a worker whether it holds each block, in any tier."""
        size = layout.key_block_size or 1
        held = {group: np.zeros(len(self), np.bool_) for group in groups_of(layout)}
        for holding, numbers in self._by_worker.get(worker, {}).items():
            if holding.place.group not in held:
                continue
            is_in_set = np.zeros(len(self._sets), np.bool_)
            is_in_set[numbers] = True
            blocks = is_in_set[self._numbers]
            chunk = layout.offload_chunk(holding.place.tier, size)
            if chunk:  # such a tier announces only the last block of each chunk
                blocks = np.repeat(blocks[chunk - 1 :: chunk], chunk)
                blocks = np.append(blocks, np.zeros(len(self) - len(blocks), np.bool_))
            held[holding.place.group] |= blocks
        return held


def groups_of(layout: CacheLayout) -> Mapping[int, Group]:
    """Return the cache groups of a layout, which are one main group if it names none."""
    return layout.groups or {0: Group()}


def in_main_groups(
    held: Mapping[int, NDArray[np.bool_]], layout: CacheLayout, blocks: int
) -> NDArray[np.bool_]:
    """Return whether all groups of full attention hold each of so many blocks."""
    main = [held[number] for number in main_groups(layout) if number in held]
    return np.logical_and.reduce(main) if main else np.zeros(blocks, np.bool_)


def main_groups(layout: CacheLayout) -> Collection[int]:
    """Return the numbers of the groups of full attention."""
    groups = groups_of(layout).items()
    return [number for number, group in groups if group.attention is Attention.MAIN]


def leading(held: NDArray[np.bool_]) -> int:
    """Return how many blocks are held from the first one on without a gap."""
    return len(held) if held.all() else int(held.argmin())
