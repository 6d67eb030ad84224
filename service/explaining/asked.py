"""The prompt to explain, and the forms of it that are tried."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from indexer import PromptKeys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from indexer import KeyScheme, MultimodalItem, Tokens

_TOKENS_AT_ONCE = 16_384


class Turn(Protocol):
    """A call's turn on the processor."""

    async def pause(self) -> None:
        """Let others go first if the turn is over."""
        ...


@dataclass(frozen=True, slots=True)
class AskedPrompt:
    """A prompt as block keys are made of it."""

    model: str
    scheme: KeyScheme
    tokens: Tokens
    lora_name: str = ""
    items: Sequence[MultimodalItem] = ()
    salt: str = ""
    tier_weights: Mapping[str, float] = field(default_factory=dict)
    """Tier -> what a block in it adds to a score, where it is not what the index has."""

    @property
    def block_size(self) -> int:
        """Tokens of a block of an answer."""
        return self.scheme.block_size

    @property
    def total_blocks(self) -> int:
        """Full blocks of the prompt."""
        return len(self.tokens) // self.block_size

    def keys(self) -> PromptKeys:
        """Return what makes the prompt's block keys."""
        return PromptKeys(
            *(self.scheme, self.tokens, self.lora_name, self.items, self.salt), self.tier_weights
        )

    async def make_keys(self, turn: Turn) -> PromptKeys:
        """Return the prompt's block keys, made in slices."""
        keys = self.keys()
        for _ in keys.make_keys(_TOKENS_AT_ONCE):
            await turn.pause()
        return keys

    def beginning(self, tokens: int) -> AskedPrompt:
        """Return the first tokens of the prompt, with the items that end within them."""
        items = [item for item in self.items if item.offset + item.length <= tokens]
        return replace(self, tokens=self.tokens[:tokens], items=items)

    def moved(self, tokens: Tokens, by: int) -> AskedPrompt:
        """Return the prompt with other tokens, in which its items stand `by` tokens later."""
        items = [
            replace(item, offset=item.offset + by) for item in self.items if item.offset + by >= 0
        ]
        return replace(self, tokens=tokens, items=items)
