"""A prompt of which only the block keys are given."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping


class GivenKeys:
    """The blocks of these keys, and one token after them."""

    def __init__(
        self,
        keys: Iterable[int],
        block_size: int = 16,
        tier_weights: Mapping[str, float] | None = None,
    ) -> None:
        self._keys = array("Q", keys)
        self.block_size = block_size
        self.tier_weights = tier_weights or {}
        self.tokens = len(self._keys) * block_size + 1

    def block_keys(self, block_size: int) -> array[int]:
        assert block_size == self.block_size
        return self._keys
