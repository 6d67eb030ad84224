"""Prompts of which only the block keys are given."""

from __future__ import annotations

from array import array
from collections.abc import Iterable


class GivenKeys:
    """A prompt with these block keys and one token more, whatever the size of blocks."""

    def __init__(self, keys: Iterable[int], block_size: int = 16) -> None:
        self._keys = array("Q", keys)
        self.block_size = block_size
        self.tokens = len(self._keys) * block_size + 1

    def at(self, block_size: int) -> array[int]:
        assert block_size == self.block_size
        return self._keys
