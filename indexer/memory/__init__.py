"""The embedded index: an `Index` in this process's memory, bounded by bytes.

`MemoryIndex` answers for one process. `ReplicatedIndex` is the same index as one of several
replicas: it tells what has changed of its own workers, and takes in what others tell of theirs.

    changes             what has changed of one worker, pending and as values
    dumped_table        checks a dumped block table before the kernel trusts it
    dumped_values       values of a dump, of the right type and within bounds
    dumped_workers      checks the workers of a dumped index
    inspection          a close look at an index, for those who ask why
    holders             gives workers their holders
    prompt_matcher      prompt -> prefix walks
    match               the outcome of a prefix walk
    memory_index        `MemoryIndex`
    replicated_index    `ReplicatedIndex`
    tiers               the numbers and weights of tiers
    workers             the workers of an index, by name and by model
"""

from __future__ import annotations

from indexer.memory.changes import Changes
from indexer.memory.inspection import HashMeaning, Holding, Inspection
from indexer.memory.match import MemoryPrefixMatch, Walk, WalkedWorker
from indexer.memory.memory_index import MemoryIndex
from indexer.memory.replicated_index import ReplicatedIndex
from indexer.memory.tiers import DEFAULT_TIER_WEIGHTS, TierRegistry
from indexer.memory.workers import KeySize

__all__ = [
    "DEFAULT_TIER_WEIGHTS",
    "Changes",
    "HashMeaning",
    "Holding",
    "Inspection",
    "KeySize",
    "MemoryIndex",
    "MemoryPrefixMatch",
    "ReplicatedIndex",
    "TierRegistry",
    "Walk",
    "WalkedWorker",
]
