"""Engine blocks longer than a block key's: where their extras lie, and which blocks are named.

An engine announces which images are in a block and where each begins, but not where it ends. A
sparse list of hashes has the order of the blocks, but not their positions. What follows from that
all the same is worked out here; nothing is guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvevents.wire import parse_extra_keys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from indexer import Extra
    from kvevents.wire import BlockStored, ExtraStrings


def read_extras(
    event: BlockStored, strings: ExtraStrings, key_block_size: int
) -> tuple[int, str, list[tuple[Extra, ...] | None] | None]:
    """The extras of an event's block keys.

    Returns how many leading blocks of the event are understood, why not the next one, and the
    extras of the keys of at least these; None if there are none.
    """
    parsed = parse_extra_keys(event, strings)
    understood, reason = parsed.understood, parsed.reason
    span = event.block_size // key_block_size
    if parsed.blocks is None:
        return understood, reason, None
    if span <= 1:
        return understood, reason, [extras or None for extras in parsed.blocks]
    spread, placed = spread_extras(parsed.blocks, parsed.offsets, span, key_block_size)
    if placed < understood:
        return placed, "images_in_wide_block", spread
    return understood, reason, spread


def spread_extras(
    blocks: Sequence[tuple[Extra, ...]],
    offsets: Sequence[tuple[int | None, ...]] | None,
    span: int,
    key_block_size: int,
) -> tuple[list[tuple[Extra, ...] | None], int]:
    """The extras of engine blocks -> the extras of the block keys that they span.

    Extras that can be placed are a salt, an image that begins in the last part of its block, and an
    image that goes on into the next block.

    Args:
        blocks: the extras of each engine block.
        offsets: of each extra from its block's first token; None for extras without one.
        span: block keys to an engine block.
        key_block_size: tokens of a block key.

    Returns:
        The extras of each block key, and how many engine blocks come before the first one whose
        extras cannot be placed.
    """
    placed: list[tuple[Extra, ...] | None] = []
    for index, extras in enumerate(blocks):
        parts: list[list[Extra]] = [[] for _ in range(span)]
        where = offsets[index] if offsets else (None,) * len(extras)
        following = _following(blocks, offsets, index + 1)
        for extra, offset in zip(extras, where, strict=True):
            if extra[0] == "Salt":
                parts[0].append(extra)
                continue
            if extra[0] != "Hash" or offset is None:
                return placed, index
            first = max(offset, 0) // key_block_size
            goes_on = (extra, offset - span * key_block_size) in following
            if first < span - 1 and not goes_on:
                return placed, index
            for part in parts[first:]:
                part.append(extra)
        placed += [tuple(part) or None for part in parts]
    return placed, len(blocks)


def _following(
    blocks: Sequence[tuple[Extra, ...]],
    offsets: Sequence[tuple[int | None, ...]] | None,
    index: int,
) -> set[tuple[Extra, int | None]]:
    if offsets is None or index >= len(blocks):
        return set()
    return set(zip(blocks[index], offsets[index], strict=True))


def find_positions(
    hashes: Sequence[int], keys: Mapping[int, int | None], blocks: Sequence[int]
) -> dict[int, int]:
    """The positions, in a run of blocks, of the hashes without a known meaning.

    An engine keeps runs of neighbouring blocks, each up to a block that is known otherwise. So a
    hash without a known meaning stands just before the next hash of the list. Hashes after the last
    known one are not found.

    Args:
        hashes: some of the run's engine hashes, in order.
        keys: engine hash -> block key, None where the meaning is not known.
        blocks: the block key of each block of the run.
    """
    positions = {key: index for index, key in enumerate(blocks)}
    found: dict[int, int] = {}
    following: int | None = None
    for engine_hash in reversed(hashes):
        key = keys[engine_hash]
        if key is not None:
            following = positions.get(key)
        elif following is not None:
            following = following - 1 if following else None
            if following is not None:
                found[engine_hash] = following
    known = {positions[key] for key in keys.values() if key in positions}
    return {name: index for name, index in found.items() if index not in known}
