"""The look-alike integers and small values that pass between this package and its callers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, NewType, TypeAlias

if TYPE_CHECKING:
    from array import array

    from indexer.cache_layout import CacheLayout

BlockKey = NewType("BlockKey", int)
"""Our own 64-bit name of a block, computed from its tokens and all before it."""

EngineHash = NewType("EngineHash", int)
"""An engine's own id of a block, as 64 bits. Opaque: two pods may use one for different blocks."""

Hashes: TypeAlias = "array[int]"
"""Engine hashes, typecode 'Q'."""

Tokens: TypeAlias = "array[int]"
"""Token ids, typecode 'Q'; any writable buffer of unsigned 64-bit integers will do."""


class Worker(NamedTuple):
    """One cache: a pod's data-parallel rank (0 without data parallelism)."""

    pod: str
    rank: int


class Place(NamedTuple):
    """Where in a worker's caches a block lies: tier (`gpu`, `cpu`, ...) and KV-cache group."""

    tier: str
    group: int = 0


class WorkerMatch(NamedTuple):
    """How much of a prompt one worker holds, and how much its engine can reuse.

    score: sum over the blocks that could be reused, if the prompt went on, of the weight of the
    best tier that holds each. matched_blocks: leading blocks held in any tier, in all main groups.
    by_tier: leading blocks held in that tier. reusable_tokens: what the engine takes from its cache
    for this very prompt. reusable_is_bound: it may be less.
    """

    worker: Worker
    score: float
    matched_blocks: int
    by_tier: dict[str, int]
    reusable_tokens: int = 0
    reusable_is_bound: bool = False


@dataclass(frozen=True, slots=True)
class WorkerBlocks:
    """What the index holds of one worker: its model, and blocks by tier (of the main groups).

    A block is as long as the worker's keys, see `CacheLayout`.
    """

    worker: Worker
    model: str
    by_tier: dict[str, int]
    layout: CacheLayout
