"""The key scheme of one model: block size, seed and names -> block keys.

Both lines make their keys here, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import cbor2

from indexer.extras import block_extras, encode
from indexer.kernel import FNV_OFFSET_BASIS, block_keys, fnv1a_64
from indexer.types import BlockKey

if TYPE_CHECKING:
    from array import array
    from collections.abc import Sequence

    from indexer.extras import Extra, MultimodalItem
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

    def sized(self, block_size: int) -> KeyScheme:
        """The scheme of the same model with blocks of another size; the roots are the same."""
        return self if block_size == self.block_size else replace(self, block_size=block_size)

    def keys(
        self,
        parent: BlockKey,
        tokens: Tokens,
        extras: Sequence[tuple[Extra, ...] | None] | None = None,
    ) -> array[int]:
        """Keys of the full blocks of `tokens` after `parent`, as an `array('Q')`.

        Raises ValueError if `extras` is not one entry for each full block.
        """
        keys: array[int] = block_keys(parent, tokens, self.block_size, encode(extras))
        return keys


class PromptKeys:
    """The block keys of one prompt, at any size of blocks: workers differ in the size of theirs.

    tokens: how many the prompt has. block_size: of the scheme, in which answers count.
    """

    __slots__ = ("_items", "_keys", "_lora_name", "_salt", "_scheme", "_tokens", "tokens")

    def __init__(
        self,
        scheme: KeyScheme,
        tokens: Tokens,
        lora_name: str | None = None,
        items: Sequence[MultimodalItem] = (),
        salt: str | None = None,
    ) -> None:
        self._scheme = scheme
        self._tokens = tokens
        self._lora_name = lora_name
        self._items = items
        self._salt = salt
        self._keys: dict[int, array[int]] = {}
        self.tokens = len(tokens)

    @property
    def block_size(self) -> int:
        """Tokens per block."""
        return self._scheme.block_size

    def at(self, block_size: int) -> array[int]:
        """The keys of the full blocks of so many tokens, an `array('Q')`."""
        keys = self._keys.get(block_size)
        if keys is None:
            scheme = self._scheme.sized(block_size)
            extras = None
            if self._items or self._salt:
                extras = block_extras(self._items, self._salt, self.tokens, block_size)
            keys = scheme.keys(scheme.root(self._lora_name), self._tokens, extras)
            self._keys[block_size] = keys
        return keys
