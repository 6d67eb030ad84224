"""TODO map."""

from __future__ import annotations

from indexer.kernel.keys import COMPILED, FNV_OFFSET_BASIS, block_keys, fnv1a_64
from indexer.kernel.prefix import PrefixWalk
from indexer.kernel.rows import RowTable

__all__ = [
    "COMPILED",
    "FNV_OFFSET_BASIS",
    "PrefixWalk",
    "RowTable",
    "block_keys",
    "fnv1a_64",
]
