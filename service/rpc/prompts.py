"""Requests -> prompts -> tokens, within the configured limits.

A prompt's protobuf message ends here: tokenization sees a `tokenization.Prompt`, the index a
`TokenizedPrompt`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
from kvatlas.v1 import scoring_pb2

from service.rpc.bounds.items import check_item_count, items_of
from service.rpc.bounds.json_text import JsonReader
from service.rpc.bounds.names import check_name
from service.rpc.errors import InvalidRequestError, ModelNameError, TooLargeError
from tokenization import (
    AnthropicMessages,
    ChatCompletion,
    Completion,
    LaterObject,
    RequestBody,
    Text,
    TokenIds,
    TokenizerMissingError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from kvatlas.v1 import tokenization_pb2
    from numpy.typing import NDArray

    from indexer import MultimodalItem, Tokens
    from service.config import LimitsSection
    from service.rpc.bounds import LongWork
    from service.rpc.model_names import ModelNames
    from tokenization import Prompt, PromptDescription, Tokenized, Tokenizers

_T = TypeVar("_T")
_LONGEST_FILE_NAME = 255  # bytes
_IDS_A_PAUSE = 65_536

# Field of a request message with a JSON body -> the form of the prompt.
_BODIES: Mapping[str, Callable[[Mapping[str, Any], int], Prompt]] = {
    "chat_completion": ChatCompletion,
    "messages": AnthropicMessages,
    "completion": Completion,
}
_LARGE_TEXT = 64 * 1024  # characters; to read so much JSON at once would delay other calls
_SCORE_INPUTS = ", ".join(
    f"prompt.{field.name}" for field in scoring_pb2.Prompt.DESCRIPTOR.oneofs_by_name["input"].fields
)


class TokenizedPrompt(NamedTuple):
    """A prompt as block keys are made of it."""

    tokens: Tokens
    """A writable buffer of unsigned 64-bit integers."""
    items: Sequence[MultimodalItem]
    cache_salt: str
    """The salt of the call or, if it has none, of the request that is the prompt."""
    tokenized: Tokenized
    """The tokens as tokenization returned them."""


class PromptReader:
    """Converts requests to prompts and tokenizes them, within the limits.

    All methods raise InvalidRequestError for a malformed request, TooLargeError for one beyond the
    limits and, where they tokenize, TokenizationError.
    """

    def __init__(self, tokenizers: Tokenizers, limits: LimitsSection, names: ModelNames) -> None:
        self._tokenizers = tokenizers
        self._names = names
        self.limits = limits

    # Conversion

    def score_prompt(self, message: scoring_pb2.Prompt) -> Prompt:
        """Return the prompt of a ScoreRequest. Token ids do not become Python integers."""
        name = message.WhichOneof("input")
        match name:
            case "packed_token_ids":
                return _token_ids(_unpacked(message.packed_token_ids))
            case "token_ids":
                return _token_ids(np.asarray(message.token_ids.ids, dtype=np.uint32))
            case "text":
                return self.text("prompt.text", message.text)
            case None:
                raise InvalidRequestError(f"prompt is empty: set one of {_SCORE_INPUTS}")
            case _:
                return self._body(name, f"prompt.{name}", getattr(message, name))

    def tokenize_prompt(self, request: tokenization_pb2.TokenizeRequest) -> Prompt:
        """Return the prompt of a TokenizeRequest."""
        given = [name for name in ("text", *_BODIES) if getattr(request, name)]
        if len(given) > 1:
            raise InvalidRequestError(f"set only one of {', '.join(given)}")
        if given in ([], ["text"]):
            add = request.add_special_tokens if request.HasField("add_special_tokens") else True
            return self.text("text", request.text, add_special_tokens=add)
        (name,) = given
        return self._body(name, name, getattr(request, name))

    def _body(self, name: str, field: str, text: str) -> Prompt:
        """Return the prompt that is a JSON text; a large one is read in a thread, in its turn."""
        self._check_text(field, text)
        read = partial(self.json_object, field, text)
        body = read() if len(text) < _LARGE_TEXT else LaterObject(read)
        return _BODIES[name](body, len(text))

    def text(self, field: str, text: str, *, add_special_tokens: bool = True) -> Text:
        """Return the prompt that is the text of a field."""
        self._check_text(field, text)
        return Text(text, add_special_tokens)

    def json_reader(self) -> JsonReader:
        """Return the reader of all JSON texts of one request."""
        return JsonReader(self.limits.json_values)

    def json_object(
        self, field: str, text: str, reader: JsonReader | None = None
    ) -> dict[str, Any]:
        """Return the JSON object that is the text of a field."""
        self._check_text(field, text)
        content = (reader or self.json_reader()).read(field, text)
        if not isinstance(content, dict):
            raise InvalidRequestError(f"{field} is not a JSON object")
        return content

    # Tokenization

    async def read_score(
        self, request: scoring_pb2.ScoreRequest, work: LongWork
    ) -> TokenizedPrompt:
        """Tokenize what a ScoreRequest asks about, and let others go first in between."""
        check_item_count(request.prompt.multimodal_items, self.limits)
        return await self.read_prompt(request, self.score_prompt(request.prompt), work)

    async def read_prompt(
        self, request: scoring_pb2.ScoreRequest, prompt: Prompt, work: LongWork
    ) -> TokenizedPrompt:
        """Do as `read_score`; prompt: what `score_prompt` has returned."""
        message, limits = request.prompt, self.limits
        tokenized = await self.tokenize(request.model, prompt, work.time_remaining())
        ids = tokenized.ids
        salt = _cache_salt(prompt)  # now, because it looks into the prompt
        salt = request.cache_salt or salt
        check_name("cache_salt", salt, limits.name_bytes)
        items: Sequence[MultimodalItem] = ()
        if message.multimodal_items:
            items = await items_of(message.multimodal_items, len(ids), limits, work)
            await work.pause()
        return TokenizedPrompt(await _widened(ids, work), items, salt, tokenized)

    async def tokenize(self, model: str, prompt: Prompt, timeout: float | None = None) -> Tokenized:
        """Tokenize a prompt: see `Tokenizers.tokenize`."""
        model = self._names.model(model)
        tokenized = await _known(model, self._tokenizers.tokenize(model, prompt, timeout))
        self._check_count(len(tokenized.ids))
        return tokenized

    async def describe(self, model: str, prompt: Prompt, tokenized: Tokenized) -> PromptDescription:
        """Return how a prompt became token ids: see `Tokenizers.describe`."""
        model = self._names.model(model)
        return await _known(model, self._tokenizers.describe(model, prompt, tokenized))

    async def offsets(
        self, model: str, text: Text, timeout: float | None = None
    ) -> tuple[list[int], list[int]]:
        """Tokenize a text and return where each token begins and ends, too: see `Model.offsets`."""
        model = self._names.model(model)
        ids, offsets = await _known(model, self._tokenizers.offsets(model, text, timeout))
        self._check_count(len(ids))
        return ids, offsets

    async def load(self, model: str) -> None:
        """Load the model's tokenizer now."""
        model = self._names.model(model)
        await _known(model, self._tokenizers.load(model))

    # Limits

    def _check_text(self, field: str, text: str) -> None:
        if not text:
            raise InvalidRequestError(f"{field} is empty")
        self.check_bytes(field, len(text) if text.isascii() else len(text.encode()))

    def check_bytes(self, what: str, size: int) -> None:
        """Refuse a text of `size` bytes if it is beyond the limit."""
        limit = self.limits.text_bytes
        if size > limit:
            raise TooLargeError(f"{what} is longer than the limit of {limit} bytes", "text_bytes")

    def _check_count(self, count: int) -> None:
        limit = self.limits.prompt_tokens
        if count > limit:
            raise TooLargeError(
                f"the prompt has {count} tokens, the limit is {limit}", "prompt_tokens"
            )


async def _known(model: str, tokenized: Awaitable[_T]) -> _T:
    """Return what is awaited. Raises ModelNameError if the model has no files, and cannot have."""
    try:
        return await tokenized
    except (TokenizerMissingError, OSError) as error:
        if len(model.encode()) > _LONGEST_FILE_NAME:
            raise ModelNameError(model) from error
        raise


def _token_ids(ids: NDArray[np.uint32]) -> TokenIds:
    if not len(ids):
        raise InvalidRequestError("prompt has no tokens")
    return TokenIds(ids)


def _unpacked(packed: bytes) -> NDArray[np.uint32]:
    if len(packed) % 4:
        raise InvalidRequestError(
            f"prompt.packed_token_ids has {len(packed)} bytes, which is not a whole number of "
            "4-byte token ids"
        )
    return np.frombuffer(packed, dtype="<u4")


async def _widened(ids: NDArray[np.uint32], work: LongWork) -> Tokens:
    """Return ids as the kernel takes them; others go first in between, as new memory is slow."""
    wide = np.empty(len(ids), dtype=np.uint64)
    for start in range(0, len(ids), _IDS_A_PAUSE):
        if start:
            await work.pause()
        wide[start : start + _IDS_A_PAUSE] = ids[start : start + _IDS_A_PAUSE]
    # A memoryview yields plain integers, which the uncompiled kernel needs; it copies nothing.
    return cast("Tokens", memoryview(cast("bytearray", wide)))


def _cache_salt(prompt: Prompt) -> str:
    """Return the salt that a request's body names, empty if it names none."""
    salt = prompt.body.get("cache_salt") if isinstance(prompt, RequestBody) else None
    if not isinstance(salt or "", str):
        raise InvalidRequestError("cache_salt is not a string")
    return salt or ""
