"""Tokens -> block keys -> holders -> scores. This package imports nothing of ours.

In path order: `types` the words, `extras` what besides tokens tells blocks apart, `keys` the hash
itself (compiled), `scheme` tokens -> block keys, `index` the contract, `memory` the embedded index
over `rows`, `table`, its `slots`, `segment`, `holder_sets`, `members` and `copies` (compiled),
`prefix` the walk (compiled), `match` its outcome, `folding` engine blocks smaller than ours;
`shared` the embedded index as one copy of several, `seats` what they call a worker's places,
`bitmaps` the walk over bits that are kept elsewhere.
"""

from __future__ import annotations

from indexer.bitmaps import Slots
from indexer.extras import Extra, MultimodalItem, block_extras
from indexer.index import Index, PrefixMatch
from indexer.keys import COMPILED
from indexer.match import MemoryPrefixMatch
from indexer.memory import DEFAULT_TIER_WEIGHTS, MemoryIndex
from indexer.scheme import KeyScheme, model_scope
from indexer.seats import Seats
from indexer.shared import Changes, SharedIndex
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
    "BlockKey",
    "Changes",
    "EngineHash",
    "Extra",
    "Hashes",
    "Index",
    "KeyScheme",
    "MemoryIndex",
    "MemoryPrefixMatch",
    "MultimodalItem",
    "Place",
    "PrefixMatch",
    "Seats",
    "SharedIndex",
    "Slots",
    "Tokens",
    "Worker",
    "WorkerBlocks",
    "WorkerMatch",
    "block_extras",
    "model_scope",
]
