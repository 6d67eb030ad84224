"""Bytes of a payload -> typed events. Pure: no I/O.

In path order:

    decoding    payload -> events, over the compiled reader
    events      the events of a frame, as typed values
    extra_keys  what identifies a block besides its tokens: images, salts, embeddings
    media       storage media -> tiers, and when tiers lose their contents
"""

from __future__ import annotations

from kvevents.wire.decoding import DECODE_ERRORS, decode_batch, decode_in_slices
from kvevents.wire.events import (
    AllBlocksCleared,
    Batch,
    BlockRemoved,
    BlockStored,
    Event,
    FrameLimits,
    PayloadError,
)
from kvevents.wire.extra_keys import ExtraStrings, parse_extra_keys
from kvevents.wire.media import (
    ALL_TIER_CLASSES,
    CPU_TIER,
    GPU_TIER,
    TierClass,
    class_of,
    is_known,
    tier_of,
)

__all__ = [
    "ALL_TIER_CLASSES",
    "CPU_TIER",
    "DECODE_ERRORS",
    "GPU_TIER",
    "AllBlocksCleared",
    "Batch",
    "BlockRemoved",
    "BlockStored",
    "Event",
    "ExtraStrings",
    "FrameLimits",
    "PayloadError",
    "TierClass",
    "class_of",
    "decode_batch",
    "decode_in_slices",
    "is_known",
    "parse_extra_keys",
    "tier_of",
]
