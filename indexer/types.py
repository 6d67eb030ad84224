"""The look-alike integers and small values that pass between this package and its callers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, NewType, TypeAlias

if TYPE_CHECKING:
    from array import array

    from indexer.cache_layout import CacheLayout

BlockKey = NewType("BlockKey", int)
"""Our own 64-bit name of a block, computed from its tokens and all tokens before it."""

EngineHash = NewType("EngineHash", int)
"""An engine's name of a block, as 64 bits. Opaque: two pods may use one for different blocks."""

Hashes: TypeAlias = "array[int]"
"""Engine hashes, typecode 'Q'."""

Tokens: TypeAlias = "array[int]"
"""Token ids, typecode 'Q'. Any writable buffer of unsigned 64-bit integers serves as well."""


class Worker(NamedTuple):
    """One KV cache: that of a pod's data-parallel rank."""

    pod: str
    rank: int
    """0 without data parallelism."""


class Place(NamedTuple):
    """A part of a worker's cache: a tier, and a cache group in it."""

    tier: str
    """`gpu`, `cpu`, ..."""
    group: int = 0


class WorkerMatch(NamedTuple):
    """How much of a prompt one worker holds, and how much its engine can reuse."""

    worker: Worker
    score: float
    """The sum of weights of the blocks that could be reused if the prompt went on. A block weighs
    as much as the best tier that holds it."""
    matched_blocks: int
    """Leading blocks held in all main groups, in any tier."""
    by_tier: dict[str, int]
    """Leading blocks held in that tier, for each tier with any."""
    reusable_tokens: int = 0
    """Tokens that the engine takes from its cache for this very prompt."""
    reusable_is_bound: bool = False
    """Whether `reusable_tokens` is only an upper bound."""


@dataclass(frozen=True, slots=True)
class WorkerBlocks:
    """What the index holds of one worker."""

    worker: Worker
    model: str
    by_tier: dict[str, int]
    """Blocks of the main groups in each tier. A block is as long as one of the worker's keys."""
    layout: CacheLayout
