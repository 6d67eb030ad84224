"""Key schemes: a model's name, block size and hash seed -> block keys.

Events and requests both get their keys from here, and from nowhere else.
"""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import cbor2

from indexer.extras import MultimodalItem, block_extras, encode
from indexer.kernel import FNV_OFFSET_BASIS, block_keys, fnv1a_64
from indexer.types import BlockKey

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from indexer.extras import Extra
    from indexer.types import Tokens

_AS_CONFIGURED: Mapping[str, float] = {}


def model_scope(model: str) -> int:
    """Return a hash of a model's name that keeps its blocks apart from those of other models.

    An index looks a block up by `key ^ scope`.
    """
    scope: int = fnv1a_64(model.encode(), FNV_OFFSET_BASIS)
    return scope


@dataclass(frozen=True)
class KeyScheme:
    """Makes block keys of the prompts of one model."""

    model: str
    """The name of the base model."""
    block_size: int
    """Tokens per block."""
    seed: str = ""
    """The configured hash seed, the same for the whole fleet; "" as in llm-d-kv-cache."""
    _roots: dict[str, BlockKey] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """A name for the keys: schemes of one model with equal names make equal keys."""
        return f"{self.block_size}-{fnv1a_64(self.seed.encode(), FNV_OFFSET_BASIS):x}"

    def root(self, lora_name: str | None = None) -> BlockKey:
        """Return the key before block 0, in which an adapter's name replaces the model's."""
        name = lora_name or self.model
        root = self._roots.get(name)
        if root is None:
            seed_hash = fnv1a_64(self.seed.encode(), FNV_OFFSET_BASIS)
            payload = cbor2.dumps([seed_hash, None, name], canonical=True)
            root = BlockKey(fnv1a_64(payload, FNV_OFFSET_BASIS))
            if len(self._roots) < 10_000:  # requests bring the names, so bound how many are kept
                self._roots[name] = root
        return root

    def sized(self, block_size: int) -> KeyScheme:
        """Return the scheme of the same model with blocks of another size; it shares the roots."""
        return self if block_size == self.block_size else replace(self, block_size=block_size)

    def keys(
        self,
        parent: BlockKey,
        tokens: Tokens,
        extras: Sequence[tuple[Extra, ...] | None] | None = None,
    ) -> array[int]:
        """Return the keys of the full blocks of `tokens` after `parent`, an `array('Q')`.

        Raises ValueError if `extras` does not have one entry for each full block.
        """
        encoded = None if extras is None else encode(extras)
        keys: array[int] = block_keys(parent, tokens, self.block_size, encoded)
        return keys


class PromptKeys:
    """The block keys of one prompt, for blocks of any size; see `PromptBlocks`.

    Workers of one model may differ in the size of their blocks. Keys of one size are made once.
    """

    __slots__ = (
        "_items",
        "_keys",
        "_lora_name",
        "_made",
        "_salt",
        "_scheme",
        "_tokens",
        "tier_weights",
        "tokens",
    )

    def __init__(
        self,
        scheme: KeyScheme,
        tokens: Tokens,
        lora_name: str | None = None,
        items: Sequence[MultimodalItem] = (),
        salt: str | None = None,
        tier_weights: Mapping[str, float] = _AS_CONFIGURED,
    ) -> None:
        """Take the prompt's tokens, and what else goes into its keys.

        Args:
            scheme: the model's; answers count in blocks of its size.
            tokens: all tokens of the prompt.
            lora_name: the adapter, if the request is for one.
            items: the prompt's images and the like.
            salt: the request's cache salt.
            tier_weights: see `PromptBlocks`.
        """
        self._scheme = scheme
        self._tokens = tokens
        self._lora_name = lora_name
        self._items = items
        self._salt = salt
        self._keys: dict[int, array[int]] = {}
        self._made = array("Q")  # by `make_keys`, so far
        self.tokens = len(tokens)
        """How many tokens the prompt has."""
        self.tier_weights = tier_weights

    @property
    def block_size(self) -> int:
        """Tokens of a block of an answer."""
        return self._scheme.block_size

    @property
    def has_plain_keys(self) -> bool:
        """Whether nothing but tokens goes into most keys, which makes them fast."""
        return not (self._items or self._salt)

    def make_keys(self, tokens_at_once: int) -> Iterator[int]:
        """Make the keys of the answers' block size in steps of about so many tokens.

        Yields how many tokens have their keys. After the last step `block_keys` has them at hand.
        """
        scheme, size = self._scheme, self._scheme.block_size
        step = max(1, tokens_at_once // size) * size
        parent = scheme.root(self._lora_name)
        keys = self._made = array("Q")
        ahead = deque(sorted(self._items, key=lambda item: item.offset))
        begun: list[MultimodalItem] = []
        for start in range(0, self.tokens, step):
            tokens = self._tokens[start : start + step]
            end = start + len(tokens)
            while ahead and ahead[0].offset < end:
                begun.append(ahead.popleft())
            parts = [_part_of(item, start, end) for item in begun]
            begun = [item for item in begun if item.offset + item.length > end]
            salt = self._salt if start == 0 else None
            some = scheme.keys(parent, tokens, block_extras(parts, salt, len(tokens), size))
            if some:
                keys.extend(some)
                parent = BlockKey(some[-1])
            yield end
        self._keys[size] = keys

    def made_so_far(self) -> PromptKeys:
        """Return the leading part of the prompt whose keys `make_keys` has made."""
        size = self._scheme.block_size
        end = len(self._made) * size
        items = [_part_of(item, 0, end) for item in self._items if item.offset < end]
        part = PromptKeys(
            *(self._scheme, self._tokens[:end], self._lora_name, items, self._salt),
            self.tier_weights,
        )
        part._keys[size] = self._made
        return part

    @property
    def known_keys(self) -> Mapping[int, array[int]]:
        """The keys that have been asked for, by tokens of a block."""
        return self._keys

    def block_keys(self, block_size: int) -> array[int]:
        """Return the keys of the full blocks of `block_size` tokens, an `array('Q')`."""
        keys = self._keys.get(block_size)
        if keys is None:
            scheme = self._scheme.sized(block_size)
            extras = None
            if self._items or self._salt:
                extras = block_extras(self._items, self._salt, self.tokens, block_size)
            keys = scheme.keys(scheme.root(self._lora_name), self._tokens, extras)
            self._keys[block_size] = keys
        return keys


def _part_of(item: MultimodalItem, start: int, end: int) -> MultimodalItem:
    """Return what of an item stands from token `start` to token `end`, relative to `start`."""
    first = max(item.offset, start)
    return MultimodalItem(item.hash, first - start, min(item.offset + item.length, end) - first)
