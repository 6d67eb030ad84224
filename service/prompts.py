"""A request's prompt -> token ids and the extras of its blocks."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, cast

import numpy as np

from indexer import MultimodalItem
from service.errors import InvalidRequestError, TooLargeError

if TYPE_CHECKING:
    from kvatlas.v1 import scoring_pb2

    from indexer import Tokens
    from service.sections import LimitsSection
    from tokenization import Tokenizers


class Prompts:
    """Reads prompts within the limits, without a Python integer per token."""

    def __init__(self, tokenizers: Tokenizers, limits: LimitsSection) -> None:
        self._tokenizers = tokenizers
        self._limits = limits

    async def tokens(self, model: str, prompt: scoring_pb2.Prompt) -> Tokens:
        """The token ids of `prompt`, a writable buffer of unsigned 64-bit integers.

        Raises InvalidRequestError, TooLargeError, TokenizationError.
        """
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
                return array("Q", await self.encode(model, prompt.text, add_special_tokens=True))
            case _:
                raise InvalidRequestError(
                    "prompt is empty: set one of prompt.text, prompt.token_ids, "
                    "prompt.packed_token_ids"
                )
        if not len(ids):
            raise InvalidRequestError("prompt has no tokens")
        self._check_count(len(ids))
        # A memoryview gives plain integers, which the uncompiled kernel needs; it copies nothing.
        return cast("Tokens", memoryview(cast("bytearray", ids.astype(np.uint64))))

    async def encode(self, model: str, text: str, add_special_tokens: bool) -> list[int]:
        """The token ids of `text`. Raises as `tokens` does."""
        if not text:
            raise InvalidRequestError("the text is empty")
        if len(text) > self._limits.text_bytes or len(text.encode()) > self._limits.text_bytes:
            raise TooLargeError(
                f"the text is longer than the limit of {self._limits.text_bytes} bytes "
                "(limits.text_bytes)"
            )
        ids = await self._tokenizers.encode(model, text, add_special_tokens)
        self._check_count(len(ids))
        return ids

    def _check_count(self, count: int) -> None:
        if count > self._limits.prompt_tokens:
            raise TooLargeError(
                f"the prompt has {count} tokens, the limit is {self._limits.prompt_tokens} "
                "(limits.prompt_tokens)"
            )


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
