"""Events as engines put them on the wire: maps of vLLM 0.24 and later, and older arrays."""

from __future__ import annotations

from typing import Any

import msgpack

from kvevents import BlockStored, decode_batch
from kvevents.wire import Batch


def store(hashes: list[int], tokens: list[int], **fields: Any) -> dict[str, Any]:
    """A BlockStored that begins a sequence on the GPU; its blocks share the tokens evenly."""
    return {
        "type": "BlockStored",
        "block_hashes": hashes,
        "parent_block_hash": None,
        "token_ids": tokens,
        "block_size": len(tokens) // len(hashes) if hashes else 16,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
        **fields,
    }


def remove(hashes: list[int], **fields: Any) -> dict[str, Any]:
    """A BlockRemoved of one copy of each block on the GPU."""
    return {"type": "BlockRemoved", "block_hashes": hashes, "medium": "GPU", **fields}


def clear() -> dict[str, Any]:
    """An AllBlocksCleared."""
    return {"type": "AllBlocksCleared"}


def decoded(*events: Any) -> Batch:
    """The events, packed into a payload and decoded again."""
    return decode_batch(msgpack.packb([1.0, list(events), 0]))


def decoded_store(event: Any) -> BlockStored:
    """A BlockStored, packed into a payload and decoded again."""
    (found,) = decoded(event).events
    assert isinstance(found, BlockStored)
    return found
