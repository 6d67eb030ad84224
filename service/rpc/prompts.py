"""A request's prompt -> token ids, and what else of it is part of its blocks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from indexer import MultimodalItem
from service.rpc.errors import InvalidRequestError, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from kvatlas.v1 import scoring_pb2
    from numpy.typing import NDArray

    from indexer import Tokens
    from service.config import LimitsSection
    from tokenization import Tokenized, Tokenizers


class TokenizedPrompt(NamedTuple):
    """tokens: a writable buffer of unsigned 64-bit integers. cache_salt: if the prompt says one."""

    tokens: Tokens
    cache_salt: str


class PromptReader:
    """Reads prompts within the limits, without a Python integer per token given as an id."""

    def __init__(self, tokenizers: Tokenizers, limits: LimitsSection) -> None:
        self._tokenizers = tokenizers
        self._limits = limits

    async def read(
        self, model: str, prompt: scoring_pb2.Prompt, patience: float | None = None
    ) -> TokenizedPrompt:
        """What `prompt` says. patience: seconds after which nobody waits for it any more.

        Raises InvalidRequestError, TooLargeError, TokenizationError.
        """
        salt = ""
        match prompt.WhichOneof("input"):
            case "packed_token_ids":
                if len(prompt.packed_token_ids) % 4:
                    raise InvalidRequestError(
                        f"prompt.packed_token_ids has {len(prompt.packed_token_ids)} bytes, which "
                        "is not a whole number of 4-byte token ids"
                    )
                ids = np.frombuffer(prompt.packed_token_ids, dtype="<u4")
            case "token_ids":
                ids = np.asarray(prompt.token_ids.ids, dtype=np.uint32)
            case "text":
                tokenized = await self.encode(
                    model, prompt.text, add_special_tokens=True, patience=patience
                )
                return TokenizedPrompt(
                    _widened(np.frombuffer(tokenized.ids, dtype=np.uint32)), salt
                )
            case "chat_completion":
                body = self.body("prompt.chat_completion", prompt.chat_completion)
                return await self._of_request(body, self.chat(model, body, patience))
            case "messages":
                body = self.body("prompt.messages", prompt.messages)
                return await self._of_request(body, self.messages(model, body, patience))
            case "completion":
                body = self.body("prompt.completion", prompt.completion)
                return await self._of_request(body, self.completion(model, body, patience))
            case _:
                raise InvalidRequestError(
                    "prompt is empty: set one of prompt.text, prompt.chat_completion, "
                    "prompt.messages, prompt.completion, prompt.token_ids, prompt.packed_token_ids"
                )
        if not len(ids):
            raise InvalidRequestError("prompt has no tokens")
        self._check_count(len(ids))
        return TokenizedPrompt(_widened(ids), salt)

    @staticmethod
    async def _of_request(body: dict[str, Any], doing: Awaitable[Tokenized]) -> TokenizedPrompt:
        salt = body.get("cache_salt") or ""
        if not isinstance(salt, str):
            raise InvalidRequestError("cache_salt is not a string")
        ids = np.frombuffer((await doing).ids, dtype=np.uint32)
        return TokenizedPrompt(_widened(ids), salt)

    # Texts and requests; all raise as `read` does

    async def encode(
        self, model: str, text: str, *, add_special_tokens: bool, patience: float | None = None
    ) -> Tokenized:
        """A text as it is."""
        self._check_length("the text", text)
        return self._checked(
            await self._tokenizers.encode(
                model, text, add_special_tokens=add_special_tokens, patience=patience
            )
        )

    async def offsets(
        self, model: str, text: str, *, add_special_tokens: bool
    ) -> tuple[list[int], list[int]]:
        """The ids of a text, and of each where in it it begins and ends (in characters)."""
        self._check_length("the text", text)
        ids, offsets = await self._tokenizers.offsets(
            model, text, add_special_tokens=add_special_tokens
        )
        self._check_count(len(ids))
        return ids, offsets

    async def load(self, model: str) -> None:
        """Load the model's tokenizer now."""
        await self._tokenizers.load(model)

    async def chat(
        self, model: str, body: dict[str, Any], patience: float | None = None
    ) -> Tokenized:
        """A chat-completions request."""
        return self._checked(await self._tokenizers.chat(model, body, patience))

    async def messages(
        self, model: str, body: dict[str, Any], patience: float | None = None
    ) -> Tokenized:
        """A request to /v1/messages."""
        return self._checked(await self._tokenizers.messages(model, body, patience))

    async def completion(
        self, model: str, body: dict[str, Any], patience: float | None = None
    ) -> Tokenized:
        """A completions request."""
        return self._checked(await self._tokenizers.completion(model, body, patience))

    def body(self, where: str, text: str) -> dict[str, Any]:
        """The JSON object that is the body of a request."""
        self._check_length(where, text)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidRequestError(f"{where} is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise InvalidRequestError(f"{where} is not a JSON object")
        return found

    def _check_length(self, where: str, text: str) -> None:
        if not text:
            raise InvalidRequestError(f"{where} is empty")
        if len(text) > self._limits.text_bytes or len(text.encode()) > self._limits.text_bytes:
            raise TooLargeError(
                f"{where} is longer than the limit of {self._limits.text_bytes} bytes "
                "(limits.text_bytes)"
            )

    def _checked(self, tokenized: Tokenized) -> Tokenized:
        self._check_count(len(tokenized.ids))
        return tokenized

    def _check_count(self, count: int) -> None:
        if count > self._limits.prompt_tokens:
            raise TooLargeError(
                f"the prompt has {count} tokens, the limit is {self._limits.prompt_tokens} "
                "(limits.prompt_tokens)"
            )


def _widened(ids: NDArray[np.uint32]) -> Tokens:
    # A memoryview gives plain integers, which the uncompiled kernel needs; it copies nothing.
    return cast("Tokens", memoryview(cast("bytearray", ids.astype(np.uint64))))


def multimodal_items(prompt: scoring_pb2.Prompt, token_count: int) -> list[MultimodalItem]:
    """The images and the like of a `prompt` of so many tokens.

    Raises InvalidRequestError for one without a hash, and if they must overlap.
    """
    items = []
    occupied = 0
    for index, item in enumerate(prompt.multimodal_items):
        if not item.hash:
            raise InvalidRequestError(f"prompt.multimodal_items[{index}] has no hash")
        occupied += max(0, min(item.offset + item.length, token_count) - item.offset)
        items.append(MultimodalItem(item.hash, item.offset, item.length))
    if occupied > token_count:
        raise InvalidRequestError(
            f"prompt.multimodal_items occupy {occupied} of {token_count} tokens: they overlap"
        )
    return items
