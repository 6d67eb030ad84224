"""TODO map."""

from __future__ import annotations

from kvevents.wire.events import (
    AllBlocksCleared,
    Batch,
    BlockRemoved,
    BlockStored,
    Event,
    PayloadError,
    decode_batch,
)
from kvevents.wire.extra_keys import parse_extra_keys
from kvevents.wire.media import GPU_TIER, tier_of

__all__ = [
    "GPU_TIER",
    "AllBlocksCleared",
    "Batch",
    "BlockRemoved",
    "BlockStored",
    "Event",
    "PayloadError",
    "decode_batch",
    "parse_extra_keys",
    "tier_of",
]
