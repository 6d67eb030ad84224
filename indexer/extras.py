"""Extras: what tells blocks with the same tokens apart. Images, salts and prompt embeddings.

Events and requests both make a sequence of `Extra`s for each block, in the order of the key, and
`encode` makes the CBOR that goes into the block's key: `[{"Hash": h}, ..., {"Salt": s}]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import cbor2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Kind = Literal["Hash", "Salt", "Embeds"]
Extra = tuple[Kind, str]
"""One entry of a block's extras: an image's hash, the cache salt or an embeddings digest (hex)."""


@dataclass(frozen=True, slots=True)
class MultimodalItem:
    """An image, audio clip or the like in a prompt."""

    hash: str
    """The engine's hash of its contents, in hex."""
    offset: int
    """The index of its first token in the prompt."""
    length: int
    """How many tokens it occupies."""


def block_extras(
    items: Iterable[MultimodalItem], salt: str | None, token_count: int, block_size: int
) -> list[tuple[Extra, ...] | None] | None:
    """Return the extras of each full block of a prompt, or None if no block can have any.

    An item belongs to every block that it overlaps; items are in the order of their offsets. The
    salt is the last extra of block 0, and reaches later blocks through the chain of keys.
    """
    ordered = sorted(items, key=lambda item: item.offset)
    if not ordered and not salt:
        return None
    blocks: list[list[Extra]] = [[] for _ in range(token_count // block_size)]
    for item in ordered:
        end = item.offset + item.length
        first = item.offset // block_size
        last = max(first, (end - 1) // block_size)
        for index in range(first, min(last + 1, len(blocks))):
            if end > index * block_size:
                blocks[index].append(("Hash", item.hash))
    if salt and blocks:
        blocks[0].append(("Salt", salt))
    return [tuple(extras) or None for extras in blocks]


@lru_cache(maxsize=4096)
def _encode_one(extras: tuple[Extra, ...]) -> bytes:
    return cbor2.dumps([{kind: value} for kind, value in extras], canonical=True)


def encode(blocks: Sequence[tuple[Extra, ...] | None] | None) -> list[bytes | None] | None:
    """Return the CBOR of each block's extras, for `block_keys`; None for a block without any.

    An empty tuple of extras is not the same as None: it is encoded as an empty array.
    """
    if blocks is None:
        return None
    return [None if extras is None else _encode_one(extras) for extras in blocks]
