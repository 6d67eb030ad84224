"""The extra keys of an event's blocks -> the extras of our block keys: images, salt, embeddings."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from indexer import Extra
    from kvevents.wire.events import BlockStored

_MOST_EXTRAS = 64  # of one block
_OLDEST_GROUPED_ARRAY = 10  # elements of vLLM 0.20's array, the first with a group and image pairs


class ExtraStrings(Enum):
    """How a plain string among the extra keys of a sequence's first block is read."""

    AUTO = "auto"
    """As an image in events of vLLM up to 0.17 (arrays without a group), else as the salt."""
    SALT = "salt"
    IMAGE = "image"
    NONE = "none"
    """There are neither salts nor images, so events need not have room for them."""


class Extras(NamedTuple):
    """The extras of an event's leading blocks, as far as they are understood."""

    blocks: list[tuple[Extra, ...]] | None
    """The extras of each understood block; None if no block of the event has any."""
    offsets: list[tuple[int | None, ...]] | None
    """Beside each image its offset from its block's first token, beside other extras None.

    Where engine blocks are smaller than ours, it tells one image in two blocks from two images.
    """
    understood: int
    """How many leading blocks are understood."""
    reason: str
    """Why the next block is not understood; empty if all are."""


def parse_extra_keys(event: BlockStored, strings: ExtraStrings) -> Extras:
    """Sort an event's extra keys into images, salt and digests of embeddings, block by block.

    A string equal to the event's adapter is the adapter; a pair is an image; another string in the
    first block of a sequence is the salt (or an image, see `ExtraStrings`); bytes are a digest of
    prompt embeddings. A block with anything else is not understood, nor are those after it.
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
        classified = _classify(entries or (), event.lora_name, first and index == 0, plain_images)
        if classified is None:
            return Extras(blocks, offsets, index, "unknown_extra_key")
        extras, where = classified
        if salt and index == 0:
            extras, where = [*extras, ("Salt", salt)], [*where, None]
        blocks.append(tuple(extras))
        offsets.append(tuple(where))
    return Extras(blocks, offsets, count, "")


def _classify(
    entries: Any, lora_name: str | None, first: bool, plain_images: bool
) -> tuple[list[Extra], list[int | None]] | None:
    """One block's extras in the order of its key, and their offsets; None if one is unknown."""
    if not isinstance(entries, (list, tuple)) or len(entries) > _MOST_EXTRAS:
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
