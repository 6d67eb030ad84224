"""Truncation of a prompt's tokens, as `truncate_prompt_tokens` of its request asks."""

from __future__ import annotations

from reprlib import repr  # noqa: A004 - the one that cuts long values
from typing import TYPE_CHECKING, Any, NamedTuple

from tokenization.errors import ChatError

if TYPE_CHECKING:
    from array import array
    from collections.abc import Mapping


class Truncation(NamedTuple):
    """How many tokens to keep, and where to cut the others."""

    limit: int
    """Tokens to keep."""
    side: str | None
    """The side to cut, "left" or "right"; None to cut the text's left as a tokenizer does."""

    def cut(self, ids: array[int], before: int = 0, after: int = 0) -> array[int]:
        """Return the token ids that are kept.

        Args:
            ids: all token ids of the prompt.
            before: how many special tokens the tokenizer has added before the text. They are kept
                if the request does not name a side.
            after: how many it has added after the text, likewise.

        Raises:
            ChatError: the special tokens alone are more than the limit.
        """
        if len(ids) <= self.limit:
            return ids
        if self.side == "right":
            return ids[: self.limit]
        if self.side == "left":
            return ids[-self.limit :]
        kept = self.limit - before - after
        if kept < 0:
            raise ChatError(f"truncate_prompt_tokens: {self.limit} has no room for special tokens")
        end = len(ids) - after
        return ids[:before] + ids[end - kept : end] + ids[end:]


def truncation_of(request: Mapping[str, Any], max_model_len: int | None) -> Truncation | None:
    """Return the truncation that a request asks for, None if it asks for none.

    Args:
        request: the body of a completions or chat-completions request.
        max_model_len: tokens of a prompt and its answer that the model allows, None if not known.

    Raises:
        ChatError: the model server would refuse the request.
    """
    limit, side = request.get("truncate_prompt_tokens"), request.get("truncation_side")
    if limit is None:
        return None
    if side not in (None, "left", "right"):
        raise ChatError(f"truncation_side is {repr(side)}, neither left nor right")
    if type(limit) is not int or limit == 0 or limit < -1:
        raise ChatError(f"truncate_prompt_tokens is {repr(limit)}, neither positive nor -1")
    if limit == -1:  # as much as leaves room for an answer of one token
        if max_model_len is None:
            raise ChatError("truncate_prompt_tokens is -1: configure the model's max_model_len")
        limit = max_model_len - 1
    if max_model_len is not None and limit > max_model_len:
        raise ChatError(f"truncate_prompt_tokens is {limit}, the model's limit is {max_model_len}")
    return Truncation(limit, side)
