"""The events of a frame, as typed values.

Fields have the names and the meaning that vLLM and SGLang give them in their KV events.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from array import array


@dataclass(slots=True)
class BlockStored:
    """An engine has cached consecutive blocks of one sequence.

    Fields without a comment are as on the wire, and None if the event does not have them.
    """

    block_hashes: array[int]
    """Engine hashes, 'Q'; of a digest the last 8 bytes, as vLLM itself makes integers of them."""
    parent_block_hash: int | None
    """The block before these; None if they begin a sequence."""
    token_ids: array[int]
    """'Q'; of SGLang's EAGLE pairs the first of each."""
    block_size: int
    lora_id: int | None = None
    medium: str | None = None
    lora_name: str | None = None
    extra_keys: list[list[Any] | None] | None = None
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None
    kv_cache_spec_sliding_window: int | None = None
    looks_ahead: bool | None = None
    """Whether it has `lookahead_token_ids`, as engines with a draft model send them."""
    cache_salt: str | None = None
    origin: str | None = None
    elements: int = 0
    """How many elements the event had as an array on the wire; 0 for a map."""
    carries_extras: bool = True
    """Whether this form of event has room for salts and images."""
    size: int = 0
    """About how many bytes the event occupies in memory."""


@dataclass(slots=True)
class BlockRemoved:
    """An engine has dropped one copy of each of these blocks."""

    block_hashes: array[int]
    medium: str | None = None
    group_idx: int | None = None
    remaining_copy_counts: list[int] | None = None
    """How many copies of each block are left, if the engine says so."""


@dataclass(slots=True)
class AllBlocksCleared:
    """An engine has dropped all blocks in its GPU's memory."""


Event = BlockStored | BlockRemoved | AllBlocksCleared


@dataclass(slots=True)
class Batch:
    """The events of one message."""

    timestamp: float
    """When the engine published them, by its own clock; 0.0 if that cannot be read."""
    events: list[Event]
    """In the order in which they happened."""
    rank: int | None
    """The data-parallel rank, None if the message does not have it."""
    skipped: dict[str, int] = field(default_factory=dict)
    """How many events could not be decoded, by reason."""
    size: int = 0
    """About how many bytes the events occupy in memory."""
    hashes: int = 0
    """Engine hashes of all events."""


class FrameLimits(NamedTuple):
    """How much one frame may contain. An engine's frames are far smaller."""

    payload_bytes: int = 4 * 1024**2
    events: int = 16_384
    hashes: int = 131_072
    """Engine hashes of all its events."""
    decoded_bytes: int = 32 * 1024**2
    """What the decoded events may occupy in memory, about."""


class PayloadError(ValueError):
    """A payload is no batch of events at all; `reason` is one of a few words, for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
