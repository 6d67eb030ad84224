"""The key scheme of one model: block size, seed and names -> block keys.

Both lines make their keys here, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cbor2

from indexer.extras import encode
from indexer.keys import FNV_OFFSET_BASIS, block_keys, fnv1a_64
from indexer.types import BlockKey

if TYPE_CHECKING:
    from array import array
    from collections.abc import Sequence

    from indexer.extras import Extra
    from indexer.types import Tokens


def model_scope(model: str) -> int:
    """What a model's blocks are told apart by from those of others: their names are key ^ scope."""
    scope: int = fnv1a_64(model.encode(), FNV_OFFSET_BASIS)
    return scope


@dataclass(frozen=True)
class KeyScheme:
    """How prompts of `model` become block keys.

    model: the base model's name. block_size: tokens per block. seed: the configured hash seed,
    the same for the whole fleet ("" as in llm-d-kv-cache).
    """

    model: str
    block_size: int
    seed: str = ""
    _roots: dict[str, BlockKey] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """What schemes of one model have in common that make the same keys of the same tokens."""
        return f"{self.block_size}-{fnv1a_64(self.seed.encode(), FNV_OFFSET_BASIS):x}"

    def root(self, lora_name: str | None = None) -> BlockKey:
        """The key before block 0; an adapter's name stands in for the model's."""
        name = lora_name or self.model
        root = self._roots.get(name)
        if root is None:
            seed_hash = fnv1a_64(self.seed.encode(), FNV_OFFSET_BASIS)
            payload = cbor2.dumps([seed_hash, None, name], canonical=True)
            root = BlockKey(fnv1a_64(payload, FNV_OFFSET_BASIS))
            if len(self._roots) < 10_000:  # names come with requests: do not let them pile up
                self._roots[name] = root
        return root

    def keys(
        self,
        parent: BlockKey,
        tokens: Tokens,
        extras: Sequence[tuple[Extra, ...]] | None = None,
    ) -> array[int]:
        """Keys of the full blocks of `tokens` after `parent`, as an `array('Q')`.

        Raises ValueError if `extras` is not one entry for each full block.
        """
        keys: array[int] = block_keys(parent, tokens, self.block_size, encode(extras))
        return keys
