"""Tokens -> block keys -> holders -> scores. This package imports no other package of kvatlas.

An event comes in as engine hashes and block keys (`index`), and changes which holders have a
block. A request comes in as tokens: `scheme` makes block keys of them, and an index matches them.

    bit_match       the prefix walk over bitmaps that the store keeps
    cache_layout    the groups of a worker's cache, and what they let an engine reuse
    cython_shadow   `import cython` for a kernel that was not compiled
    extras          what tells blocks with the same tokens apart
    holder_ids      stable numbers for holders, the same in every replica
    index           the contract of an index
    kernel          the compiled parts: the key hash, the block table, the prefix walk
    memory          the embedded index, alone or as one of several replicas
    scheme          tokens -> block keys
    trust           trust states
    types           look-alike integers and small values
"""

from __future__ import annotations

from indexer.bit_match import BitColumns, BitColumnWorker
from indexer.cache_layout import Attention, CacheLayout, Group
from indexer.extras import Extra, MultimodalItem, block_extras
from indexer.holder_ids import StableHolderIds
from indexer.index import BlockWatcher, Index, PrefixMatch, PromptBlocks
from indexer.kernel import COMPILED
from indexer.memory import (
    DEFAULT_TIER_WEIGHTS,
    Changes,
    HashMeaning,
    Holding,
    Inspection,
    MemoryIndex,
    MemoryPrefixMatch,
    ReplicatedIndex,
)
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
    "BlockWatcher",
    "CacheLayout",
    "Changes",
    "EngineHash",
    "Extra",
    "Group",
    "HashMeaning",
    "Hashes",
    "Holding",
    "Index",
    "Inspection",
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
