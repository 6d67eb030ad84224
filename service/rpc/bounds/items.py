"""The multimodal items of a prompt: named, within the prompt, and apart from each other."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from indexer import MultimodalItem
from service.rpc.bounds.names import check_name
from service.rpc.errors import InvalidRequestError, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvatlas.v1 import scoring_pb2

    from service.config import LimitsSection
    from service.rpc.bounds.turns import LongWork

_FIELD = "prompt.multimodal_items"
_ITEMS_A_PAUSE = 256


def check_item_count(messages: Sequence[scoring_pb2.MultimodalItem], limits: LimitsSection) -> None:
    """Raise TooLargeError if there are more items than `limits.multimodal_items`."""
    limit = limits.multimodal_items
    if len(messages) > limit:
        raise TooLargeError(
            f"{_FIELD} has {len(messages)} items, the limit is {limit}", "multimodal_items"
        )


async def items_of(
    messages: Sequence[scoring_pb2.MultimodalItem],
    token_count: int,
    limits: LimitsSection,
    work: LongWork,
) -> list[MultimodalItem]:
    """Return the items of a prompt of `token_count` tokens, in the order of their offsets.

    Cost: O(items x log items), whatever their lengths are; others go first in between.

    Raises:
        InvalidRequestError: an item has no hash or no token, ends after the prompt, or overlaps
            another one.
        TooLargeError: the hash of an item is longer than `limits.name_bytes`.
    """
    items = []
    for index, item in enumerate(messages):
        where = f"{_FIELD}[{index}]"
        if not item.hash:
            raise InvalidRequestError(f"{where} has no hash")
        check_name(f"{where}.hash", item.hash, limits.name_bytes)
        if not item.length:
            raise InvalidRequestError(f"{where} has length 0")
        if item.offset + item.length > token_count:
            raise InvalidRequestError(
                f"{where} ends at token {item.offset + item.length}, after the prompt, which has "
                f"{token_count} tokens"
            )
        items.append(MultimodalItem(item.hash, item.offset, item.length))
        if index % _ITEMS_A_PAUSE == _ITEMS_A_PAUSE - 1:
            await work.pause()
    items.sort(key=lambda item: item.offset)
    if any(one.offset + one.length > other.offset for one, other in pairwise(items)):
        occupied = sum(item.length for item in items)
        raise InvalidRequestError(
            f"{_FIELD} occupy {occupied} of {token_count} tokens: they overlap"
        )
    return items
