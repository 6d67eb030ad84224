"""Why a prompt could not be tokenized."""

from __future__ import annotations

from reprlib import repr  # noqa: A004 - the one that cuts long values

_MAX_MESSAGE = 500  # characters


class TokenizationError(Exception):
    """Base of this package's errors; the message is meant for the caller, and quotes no prompt."""

    def __init__(self, message: str) -> None:
        is_long = len(message) > _MAX_MESSAGE
        super().__init__(f"{message[:_MAX_MESSAGE]}..." if is_long else message)


class TokenizerMissingError(TokenizationError):
    """There is no tokenizer for a model."""

    def __init__(self, model: str, detail: str) -> None:
        super().__init__(
            f"no tokenizer for model {model!r}: {detail}; send token ids, or configure the "
            "model's tokenizer"
        )
        self.model = model


class TokenizerBrokenError(TokenizationError):
    """A tokenizer's files cannot be loaded, or the tokenizer failed on a text."""

    def __init__(self, model: str, detail: str) -> None:
        super().__init__(f"the tokenizer of model {model!r} failed: {detail}")
        self.model = model


class TokenizersBusyError(TokenizationError):
    """The queue is full, or longer than the caller's deadline allows."""

    def __init__(self, under_way: int, wait: float) -> None:
        super().__init__(
            f"{under_way} prompts are being tokenized or wait for it, which takes about "
            f"{wait:.3f} s; try again later, or send token ids"
        )


class TemplateBrokenError(TokenizationError):
    """The model has no chat template for a chat, or the template does not compile."""


class TemplateLimitError(TokenizationError):
    """A model's chat template takes too long for a chat, or makes too much of it."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"the chat template {detail}")
        self.detail = detail


class CallerGoneError(TokenizationError):
    """Nobody waits for the prompt any more: the caller's deadline has passed, or it has gone."""

    def __init__(self) -> None:
        super().__init__("the deadline has passed")


class ChatError(TokenizationError):
    """The model server would refuse the request, too."""


class UnsupportedChatError(TokenizationError):
    """The model server may accept the request, but only it knows the request's tokens."""


class UnsupportedPartError(UnsupportedChatError):
    """A message has a part, such as an image, that is not text."""

    def __init__(self, where: str, kind: object) -> None:
        super().__init__(
            f"{where} is of type {repr(kind)}: only the model server knows the tokens that stand "
            "for it; send token ids and multimodal_items"
        )
