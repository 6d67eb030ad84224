"""Tokens -> block keys -> holders -> scores. This package imports nothing of ours.

In path order: `types` the words, `extras` what besides tokens tells blocks apart, `keys` the hash
itself (compiled), `scheme` tokens -> block keys, `groups` how a worker's cache is divided and what
that lets it reuse, `index` the contract, `memory` the embedded index over `rows`, `table`, its
`slots`, `segment`, `holder_sets`, `members` and `copies` (compiled), `prefix` the walk (compiled),
`match` its outcome; `shared` the embedded index as one copy of several, `seats` what they call a
worker's places, `bitmaps` the walk over bits that are kept elsewhere.
"""

from __future__ import annotations

from indexer.bit_match import BitColumns, BitColumnWorker
from indexer.cache_layout import Attention, CacheLayout, Group
from indexer.extras import Extra, MultimodalItem, block_extras
from indexer.holder_ids import StableHolderIds
from indexer.index import Index, PrefixMatch, PromptBlocks
from indexer.kernel import COMPILED
from indexer.match import MemoryPrefixMatch
from indexer.memory import DEFAULT_TIER_WEIGHTS, MemoryIndex
from indexer.replicated import Changes, ReplicatedIndex
from indexer.scheme import KeyScheme, PromptKeys, model_scope
from indexer.trust import TrustState, TrustStatus
from indexer.types import (
    BlockKey,
    EngineHash,
    Hashes,
    Place,
    Tokens,
    Worker,
    WorkerBlocks,
    WorkerMatch,
)

__all__ = [
    "COMPILED",
    "DEFAULT_TIER_WEIGHTS",
    "Attention",
    "BitColumnWorker",
    "BitColumns",
    "BlockKey",
    "CacheLayout",
    "Changes",
    "EngineHash",
    "Extra",
    "Group",
    "Hashes",
    "Index",
    "KeyScheme",
    "MemoryIndex",
    "MemoryPrefixMatch",
    "MultimodalItem",
    "Place",
    "PrefixMatch",
    "PromptBlocks",
    "PromptKeys",
    "ReplicatedIndex",
    "StableHolderIds",
    "Tokens",
    "TrustState",
    "TrustStatus",
    "Worker",
    "WorkerBlocks",
    "WorkerMatch",
    "block_extras",
    "model_scope",
]
