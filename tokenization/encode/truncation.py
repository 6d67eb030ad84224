"""truncate_prompt_tokens: which of a prompt's tokens are left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tokenization.errors import ChatError

if TYPE_CHECKING:
    from array import array
    from collections.abc import Mapping


class Truncation(NamedTuple):
    """most: tokens that may be left. side: that is cut, None where a tokenizer would decide."""

    most: int
    side: str | None

    def cut(self, ids: array[int], before: int = 0, after: int = 0) -> array[int]:
        """What is left of `ids`.

        before, after: how many special tokens the tokenizer has added there. It keeps them, as long
        as nobody says which side to cut.
        """
        if len(ids) <= self.most:
            return ids
        if self.side == "right":
            return ids[: self.most]
        if self.side == "left":
            return ids[-self.most :]
        kept = self.most - before - after
        if kept < 0:
            raise ChatError(f"truncate_prompt_tokens: {self.most} has no room for special tokens")
        end = len(ids) - after
        return ids[:before] + ids[end - kept : end] + ids[end:]


def truncation_of(request: Mapping[str, Any], most_tokens: int | None) -> Truncation | None:
    """What a request says of it, None if nothing.

    most_tokens: of the model, None if not known. Raises ChatError.
    """
    said, side = request.get("truncate_prompt_tokens"), request.get("truncation_side")
    if said is None:
        return None
    if side not in (None, "left", "right"):
        raise ChatError(f"truncation_side is {side!r}, neither left nor right")
    if type(said) is not int or said == 0 or said < -1:
        raise ChatError(f"truncate_prompt_tokens is {said!r}, neither positive nor -1")
    if said == -1:
        if most_tokens is None:
            raise ChatError("truncate_prompt_tokens is -1: configure the model's max_model_len")
        said = most_tokens - 1
    if most_tokens is not None and said > most_tokens:
        raise ChatError(f"truncate_prompt_tokens is {said}, the model's limit {most_tokens}")
    return Truncation(said, side)
