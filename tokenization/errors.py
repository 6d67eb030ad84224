"""Why a text or a chat could not be tokenized."""

from __future__ import annotations


class TokenizationError(Exception):
    """Base of this package's errors."""


class TokenizerMissingError(TokenizationError):
    """There is no tokenizer for a model."""

    def __init__(self, model: str, looked_in: str) -> None:
        super().__init__(
            f"no tokenizer for model {model!r}: {looked_in}; send token ids, or configure "
            "the model's tokenizer"
        )
        self.model = model


class TokenizerBrokenError(TokenizationError):
    """A tokenizer file that cannot be loaded, or that failed on a text."""

    def __init__(self, model: str, detail: str) -> None:
        super().__init__(f"the tokenizer of model {model!r} failed: {detail}")
        self.model = model


class TokenizersBusyError(TokenizationError):
    """More is being tokenized than may wait, or than is done before the deadline of a call."""

    def __init__(self, under_way: int, wait: float) -> None:
        super().__init__(
            f"{under_way} prompts are being tokenized or wait for it, about {wait:.3f} s; "
            "try again later, or send token ids"
        )


class TemplateBrokenError(TokenizationError):
    """There is no chat template for a chat, or it cannot be compiled."""


class ChatError(TokenizationError):
    """A request that the model server would not accept either."""


class UnsupportedChatError(TokenizationError):
    """A request that the model server may accept, but whose tokens only it can tell."""
