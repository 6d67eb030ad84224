"""The parts of the index whose speed matters, compiled by Cython where there is a C compiler.

The same source runs as plain Python elsewhere: C types are annotations and decorators, and the
`.pxd` files declare what compiled modules see of each other. `setup.py` finds the modules by the
glob `*/kernel/[a-z]*.py`. Two words mean something else than outside: a *slot* is a place in a
hash map, and a *segment* is a 256th of one.

    holder_sets      interned sets of holders, and transitions between them
    holders          numbers for holders and announcers, their counts and refcounts
    keys             token ids -> block keys
    lookups          the holders of a prompt's blocks, and the meanings of engine hashes
    prefix           the longest-prefix walk
    reclaim          which slots to evict first; the sweep of retired holders
    rows             `RowTable`: the block table read and assigned as absolute values
    segment          a part of a hash map with open addressing
    table            `BlockTable`: applies events to blocks and mappings
    table_storage    the two hash maps and their memory bound
    tier_scores      weights of tiers, and scores
    worker_plans     whose a holder's blocks are, and which ends an engine can reuse up to
"""

from __future__ import annotations

import indexer.cython_shadow  # noqa: F401 - the modules below may need it
from indexer.kernel.keys import COMPILED, FNV_OFFSET_BASIS, block_keys, fnv1a_64
from indexer.kernel.prefix import PrefixWalk
from indexer.kernel.rows import RowTable
from indexer.kernel.worker_plans import WorkerPlans

__all__ = [
    "COMPILED",
    "FNV_OFFSET_BASIS",
    "PrefixWalk",
    "RowTable",
    "WorkerPlans",
    "block_keys",
    "fnv1a_64",
]
