"""How sequences of one worker begin: the adapters, salts and first tokens that were seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from indexer import Extra
    from kvevents.wire import BlockStored

_MOST_NAMES = 64
_MOST_TOKENS = 16
_LONGEST_NAME = 512  # characters


class SeenRoots:
    """What one worker's sequences began with, of each kind the first few to be seen.

    A block key cannot be read backwards. So whoever asks under which other adapter or salt a worker
    holds a prompt has to try those that are known.

    Attributes:
        adapters: names of LoRA adapters.
        salts: cache salts. They are secrets of those who send them: no answer may contain one.
        first_tokens: token ids, such as that of a BOS token.
    """

    __slots__ = ("adapters", "first_tokens", "salts")

    def __init__(self) -> None:
        self.adapters: set[str] = set()
        self.salts: set[str] = set()
        self.first_tokens: set[int] = set()

    def add(self, event: BlockStored) -> None:
        """An event begins a sequence."""
        if len(self.first_tokens) < _MOST_TOKENS and event.token_ids:
            self.first_tokens.add(event.token_ids[0])
        if event.lora_name:
            _add(self.adapters, event.lora_name)

    def add_extras(
        self, event: BlockStored, extras: Sequence[tuple[Extra, ...] | None] | None
    ) -> None:
        """The blocks of an event, which may begin a sequence, have these extras."""
        for kind, value in (extras and extras[0]) or ():
            if kind == "Salt" and event.parent_block_hash is None:
                _add(self.salts, value)


def _add(names: set[str], name: str) -> None:
    if len(names) < _MOST_NAMES and len(name) <= _LONGEST_NAME:
        names.add(name)
