"""The usual suspects: other forms of a prompt, under which pods may hold it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from indexer import KeyScheme, Tokens
    from service.explaining.asked import AskedPrompt

_LARGEST_ID = 2**32 - 1  # that a caller can send
_MOST_NAMES = 256  # adapters, salts and models to try, of each


class Seen(NamedTuple):
    """What sequences of a fleet's workers were seen to begin with."""

    adapters: Collection[str]
    salts: Collection[str]
    first_tokens: Collection[int]
    models: Collection[str]
    """That pods serve."""


class Variant(NamedTuple):
    """A way in which the prompt that pods hold may differ from the one that was asked about."""

    kind: str
    """See `Suspect` in explain.proto."""
    form_of: Callable[[AskedPrompt], AskedPrompt]
    """Returns that form of a prompt, or of the beginning of one."""
    token_id: int | None = None
    """The token that is extra or missing."""


def variants(
    asked: AskedPrompt, seen: Seen, scheme_of: Callable[[str], KeyScheme]
) -> Iterator[Variant]:
    """Yield the variants of a prompt to try, the likeliest first."""
    if asked.lora_name:
        yield _with("without_adapter", lora_name="")
    if asked.salt:
        yield _with("without_salt", salt="")
    if asked.items:
        yield _with("without_items", items=())
    if len(asked.tokens) > 1:
        yield Variant("first_token_extra", _without_first, asked.tokens[0])
    for first in sorted(token for token in seen.first_tokens if token <= _LARGEST_ID):
        yield Variant("first_token_missing", partial(_after, first), first)
    yield Variant("byte_swapped_ids", _swapped)
    for name in _some(seen.adapters, asked.lora_name, asked.model):
        yield _with("other_adapter", lora_name=name)
    for salt in _some(seen.salts, asked.salt):
        yield _with("other_salt", salt=salt)
    for model in _some(seen.models, asked.model):
        yield _with("other_model", model=model, scheme=scheme_of(model))


def _with(kind: str, **fields: Any) -> Variant:
    return Variant(kind, lambda asked: replace(asked, **fields))


def _some(names: Collection[str], *without: str) -> list[str]:
    return [name for name in sorted(names) if name not in without][:_MOST_NAMES]


def _without_first(asked: AskedPrompt) -> AskedPrompt:
    return asked.moved(_tokens(np.asarray(asked.tokens)[1:].copy()), -1)


def _after(first: int, asked: AskedPrompt) -> AskedPrompt:
    longer = np.concatenate([np.array([first], np.uint64), np.asarray(asked.tokens)])
    return asked.moved(_tokens(longer), 1)


def _swapped(asked: AskedPrompt) -> AskedPrompt:
    ids = np.asarray(asked.tokens).astype(np.uint32)
    return replace(asked, tokens=_tokens(ids.byteswap().astype(np.uint64)))


def _tokens(ids: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> Tokens:
    """Return ids as the kernel takes them; a memoryview yields plain integers."""
    return cast("Tokens", memoryview(cast("bytearray", ids)))
