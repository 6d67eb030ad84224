"""The usual suspects: other forms of a prompt, under which pods may hold it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from indexer import KeyScheme, Tokens
    from service.explaining.asked import AskedPrompt

_MOST_NAMES = 256  # adapters, salts and models to try, of each


class Seen(NamedTuple):
    """What sequences of a fleet's workers were seen to begin with."""

    adapters: Collection[str]
    salts: Collection[str]
    first_tokens: Collection[int]
    models: Collection[str]
    """That pods serve."""


class Variant(NamedTuple):
    """Another form of the prompt."""

    kind: str
    """See `Suspect` in explain.proto."""
    prompt: AskedPrompt
    token_id: int | None = None
    """The token that is extra or missing."""


def variants(
    asked: AskedPrompt, seen: Seen, scheme_of: Callable[[str], KeyScheme]
) -> Iterator[Variant]:
    """Yield the forms of the prompt to try, the likeliest first."""
    if asked.lora_name:
        yield Variant("without_adapter", replace(asked, lora_name=""))
    if asked.salt:
        yield Variant("without_salt", replace(asked, salt=""))
    if asked.items:
        yield Variant("without_items", replace(asked, items=()))
    yield from _of_tokens(asked, seen)
    for name in _some(seen.adapters, asked.lora_name, asked.model):
        yield Variant("other_adapter", replace(asked, lora_name=name))
    for salt in _some(seen.salts, asked.salt):
        yield Variant("other_salt", replace(asked, salt=salt))
    for model in _some(seen.models, asked.model):
        yield Variant("other_model", replace(asked, model=model, scheme=scheme_of(model)))


def _some(names: Collection[str], *without: str) -> list[str]:
    return [name for name in sorted(names) if name not in without][:_MOST_NAMES]


def _of_tokens(asked: AskedPrompt, seen: Seen) -> Iterator[Variant]:
    ids = np.asarray(asked.tokens)
    if len(ids) > 1:
        yield Variant("first_token_extra", asked.moved(_tokens(ids[1:].copy()), -1), int(ids[0]))
    for first in sorted(seen.first_tokens):
        longer = np.concatenate([np.array([first], np.uint64), ids])
        yield Variant("first_token_missing", asked.moved(_tokens(longer), 1), first)
    if len(ids) and ids.max() < 2**32:
        swapped = ids.astype(np.uint32).byteswap().astype(np.uint64)
        yield Variant("byte_swapped_ids", replace(asked, tokens=_tokens(swapped)))


def _tokens(ids: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> Tokens:
    """Return ids as the kernel takes them; a memoryview yields plain integers."""
    return cast("Tokens", memoryview(cast("bytearray", ids)))
