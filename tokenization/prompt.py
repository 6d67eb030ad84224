"""The forms of a prompt that can be tokenized, as one union, and what tokenization returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from typing_extensions import override

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class LaterObject(Mapping[str, Any]):
    """A JSON object that is made when somebody first looks into it.

    To make one of a large request takes a while: this way a thread does it, in the request's turn.

    Args:
        make: returns the object. What it raises, whoever looks gets.
    """

    def __init__(self, make: Callable[[], dict[str, Any]]) -> None:
        self._make = make

    @cached_property
    def _object(self) -> dict[str, Any]:
        return self._make()

    @override
    def __getitem__(self, name: str) -> Any:
        return self._object[name]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._object)

    @override
    def __len__(self) -> int:
        return len(self._object)


@dataclass(frozen=True, slots=True, eq=False)
class TokenIds:
    """Token ids, which need no tokenizer. An array, so that no id becomes a Python integer."""

    ids: NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Text:
    """A text, tokenized as it is."""

    text: str
    add_special_tokens: bool = True
    """Whether the tokenizer adds its special tokens, as it does for a completion."""


@dataclass(frozen=True, slots=True)
class RequestBody:
    """A request to a model server; the base of the forms that follow."""

    body: Mapping[str, Any]
    """The JSON object that a client sends."""
    size: int = field(default=0, compare=False)
    """Bytes of its text, by which its turn in the queue is decided."""


@dataclass(frozen=True, slots=True)
class ChatCompletion(RequestBody):
    """A request to /v1/chat/completions."""


@dataclass(frozen=True, slots=True)
class AnthropicMessages(RequestBody):
    """A request to /v1/messages, Anthropic's form of a chat."""


@dataclass(frozen=True, slots=True)
class Completion(RequestBody):
    """A request to /v1/completions with one prompt."""


Prompt: TypeAlias = TokenIds | Text | ChatCompletion | AnthropicMessages | Completion
"""Every form of a prompt.

A form for /v1/responses goes here, as another `RequestBody`. The type checker then points at the
one `match` that needs a case for it, in `Tokenizers.tokenize`.
"""


class Tokenized(NamedTuple):
    """A prompt's tokens."""

    ids: NDArray[np.uint32]
    rendered: str | None = None
    """The text that the chat template made of a chat; None for any other prompt."""
    queue_seconds: float = 0.0
    """How long it waited for a thread."""
    work_seconds: float = 0.0
    """How long threads worked on it."""
