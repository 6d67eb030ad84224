"""Engine blocks longer than a key's: where in them their extras are, and which they are.

A block of an engine says which images are in it and where each begins, not where it ends. A sparse
list of hashes says in which order blocks come, not where they are. Here is what follows all the
same; what does not follow is not guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from indexer import Extra


def spread_extras(
    blocks: Sequence[tuple[Extra, ...]],
    offsets: Sequence[tuple[int | None, ...]] | None,
    span: int,
    key_block_size: int,
) -> tuple[list[tuple[Extra, ...] | None], int]:
    """Extras of engine blocks, each of `span` keys -> extras of the keys' blocks.

    offsets: of each extra from its block's first token, None for those that have none. Returns also
    how many engine blocks come before the first one whose extras cannot be placed: only a salt, an
    image that begins in the last part, and one that goes on into the next block can.
    """
    ours: list[tuple[Extra, ...] | None] = []
    for index, of_block in enumerate(blocks):
        parts: list[list[Extra]] = [[] for _ in range(span)]
        where = offsets[index] if offsets else (None,) * len(of_block)
        following = _following(blocks, offsets, index + 1)
        for extra, offset in zip(of_block, where, strict=True):
            if extra[0] == "Salt":
                parts[0].append(extra)
                continue
            if extra[0] != "Hash" or offset is None:
                return ours, index
            first = max(offset, 0) // key_block_size
            goes_on = (extra, offset - span * key_block_size) in following
            if first < span - 1 and not goes_on:
                return ours, index
            for part in parts[first:]:
                part.append(extra)
        ours += [tuple(part) or None for part in parts]
    return ours, len(blocks)


def _following(
    blocks: Sequence[tuple[Extra, ...]],
    offsets: Sequence[tuple[int | None, ...]] | None,
    index: int,
) -> list[tuple[Extra, int | None]]:
    if offsets is None or index >= len(blocks):
        return []
    return list(zip(blocks[index], offsets[index], strict=True))


def find_positions(
    hashes: Sequence[int], keys: Mapping[int, int | None], blocks: Sequence[int]
) -> dict[int, int]:
    """Where in a run of blocks those of a sparse list of hashes are that are not known yet.

    keys: engine hash -> block key, None for one that is not known. blocks: the key of each block of
    the run. An engine keeps runs of neighbouring blocks, each up to one that is known otherwise: so
    one that is not known stands just before the next of the list. Those after the last known one
    are not found.
    """
    at = {key: index for index, key in enumerate(blocks)}
    found: dict[int, int] = {}
    following: int | None = None
    for engine_hash in reversed(hashes):
        key = keys[engine_hash]
        if key is not None:
            following = at.get(key)
        elif following is not None:
            following = following - 1 if following else None
            if following is not None:
                found[engine_hash] = following
    known = [at[key] for key in keys.values() if key in at]
    return {name: index for name, index in found.items() if index not in known}
