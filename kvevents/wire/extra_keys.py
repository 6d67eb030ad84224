"""What an event says besides tokens -> adapter, and per block the extras of its key."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from indexer import Extra
    from kvevents.wire.events import BlockStored

_OLDEST_GROUPED_ARRAY = 10  # elements of vLLM 0.20's array, the first with a group and image pairs


class ExtraStrings(Enum):
    """What a plain string among the extra keys of a first block is."""

    AUTO = "auto"
    """An image in events as vLLM up to 0.17 writes them (arrays without a group), else the salt."""
    SALT = "salt"
    IMAGE = "image"
    NONE = "none"
    """There are neither salts nor images: a wire that could not tell of them is no matter."""


class Extras(NamedTuple):
    """The extras of an event's leading blocks, and why those after them are not understood.

    blocks: one entry for each understood block, or None if no block has any.
    offsets: beside each extra the offset of an image from its block's first token (None for other
    extras), by which engine blocks smaller than ours tell one image in two blocks from two.
    understood: how many leading blocks these are. reason: what stopped the rest, or "".
    """

    blocks: list[tuple[Extra, ...]] | None
    offsets: list[tuple[int | None, ...]] | None
    understood: int
    reason: str


def parse_extra_keys(event: BlockStored, strings: ExtraStrings) -> Extras:
    """Sort the extra keys of `event` into images, salt and embeddings digests, block by block.

    An entry equal to the event's adapter is the adapter; a pair is an image; a string in the first
    block of a sequence is the salt (or an image, see `ExtraStrings`); bytes are a digest of prompt
    embeddings. A block with anything else, and so every one after it, is not understood.
    """
    count = len(event.block_hashes)
    keys = event.extra_keys
    first = event.parent_block_hash is None
    salt = event.cache_salt if first else None
    if keys is None or not any(keys):
        if salt and count:
            return Extras([(("Salt", salt),), *([()] * (count - 1))], None, count, "")
        return Extras(None, None, count, "")
    if len(keys) != count:
        return Extras(None, None, 0, "extra_keys_length")
    plain_images = strings is ExtraStrings.IMAGE or (
        strings is ExtraStrings.AUTO and 0 < event.elements < _OLDEST_GROUPED_ARRAY
    )
    blocks: list[tuple[Extra, ...]] = []
    offsets: list[tuple[int | None, ...]] = []
    for index, entries in enumerate(keys):
        sorted_out = _sort_out(entries or (), event.lora_name, first and index == 0, plain_images)
        if sorted_out is None:
            return Extras(blocks, offsets, index, "unknown_extra_key")
        extras, where = sorted_out
        if salt and index == 0:
            extras, where = [*extras, ("Salt", salt)], [*where, None]
        blocks.append(tuple(extras))
        offsets.append(tuple(where))
    return Extras(blocks, offsets, count, "")


def _sort_out(
    entries: Any, lora_name: str | None, first: bool, plain_images: bool
) -> tuple[list[Extra], list[int | None]] | None:
    """One block's extras in key order with the offsets of its images; None if one is unknown."""
    if not isinstance(entries, (list, tuple)):
        return None
    images: list[tuple[int | None, str]] = []
    rest: list[Extra] = []
    for entry in entries:
        match entry:
            case str() if entry == lora_name:
                pass
            case [str() as image, int() as offset]:
                images.append((offset, image))
            case str() if plain_images:
                images.append((None, entry))
            case str() if first and not rest:
                rest.append(("Salt", entry))
            case bytes():
                rest.append(("Embeds", entry.hex()))
            case _:
                return None
    images.sort(key=lambda image: image[0] or 0)
    extras: list[Extra] = [("Hash", image) for _, image in images]
    return extras + rest, [offset for offset, _ in images] + [None] * len(rest)
