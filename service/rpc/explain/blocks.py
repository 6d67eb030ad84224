"""Single blocks, and the events that touched them, as messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvatlas.v1.explain_pb2 import (
    BlockEvent,
    BlockHolder,
    FoundBlock,
    HashMeaning,
    LookupBlocksResponse,
)

from service.explaining.words import short, some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.explaining import FoundBlock as Found
    from service.explaining import Touch

_MOST_HOLDERS = 64
_MOST_PODS = 64
_LARGEST_GROUP = 2**32 - 1


def block_event(touch: Touch) -> BlockEvent:
    """Return the message of an event that touched a block."""
    return BlockEvent(
        pod=touch.worker.pod,
        rank=touch.worker.rank,
        type=touch.type,
        tier=short(touch.tier),
        group=_group(touch.group),
        sequence=touch.sequence,
        age_seconds=touch.age,
        engine_hash=touch.engine_hash,
        hashes=touch.hashes,
    )


def found_blocks(found: Sequence[Found], *, has_all_blocks: bool) -> LookupBlocksResponse:
    """Return the answer about single blocks.

    has_all_blocks: whether this replica knows those of all pods.
    """
    held = sum(bool(block.holders) for block in found)
    summary = f"Pods hold {held} of {some(len(found), 'block')}."
    if not has_all_blocks:
        summary += (
            " Only pods whose events this replica applies were searched: it keeps no copy of other "
            "replicas' blocks (store.copy_blocks)."
        )
    return LookupBlocksResponse(blocks=[_found_block(block) for block in found], summary=summary)


def _group(number: int) -> int:
    """Return a group's number off the wire, which may be any, as the protocol has room for it."""
    return min(max(0, number), _LARGEST_GROUP)


def _found_block(found: Found) -> FoundBlock:
    message = FoundBlock(
        meanings=[
            HashMeaning(key=key, pods=pods[:_MOST_PODS], pod_count=len(pods))
            for key, pods in found.meanings.items()
        ],
        holders=[
            BlockHolder(
                pod=holder.worker.pod,
                rank=holder.worker.rank,
                model=holder.model,
                tier=short(holder.place.tier),
                group=_group(holder.place.group),
                copies=holder.copies,
                owner=holder.owner,
            )
            for holder in found.holders[:_MOST_HOLDERS]
        ],
        holder_count=len(found.holders),
        events=map(block_event, found.events),
        summary=found.summary,
    )
    if found.is_hash:
        message.engine_hash = found.name
    else:
        message.key = found.name
    return message
