"""Texts and requests -> the token ids that a model server would compute for them."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tokenization.chat import (
    brings_template,
    render_chat,
    takes_system_first_only,
    to_chat_completion,
)
from tokenization.encode import truncation_of
from tokenization.errors import ChatError, UnsupportedChatError
from tokenization.prompt import Tokenized

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenization.chat import ChatOptions, RenderWatch
    from tokenization.encode import Ids
    from tokenization.model import Model

_MAX_ID = 2**32 - 1


def tokenize_text(model: Model, text: str, *, add_special_tokens: bool) -> Tokenized:
    """Tokenize a text as it is. Raises TokenizationError."""
    return _tokenized(model.encode(text, add_special_tokens=add_special_tokens))


@dataclass(frozen=True, slots=True)
class ForeignChat:
    """A chat with a template of its own, which must be rendered in another process."""

    request: Mapping[str, Any]
    """The body of a chat-completions request."""


def tokenize_chat(
    model: Model,
    request: Mapping[str, Any],
    options: ChatOptions,
    watch: RenderWatch | None = None,
) -> Tokenized | ForeignChat:
    """Tokenize the body of a chat-completions request, if it brings no template of its own.

    Raises TokenizationError.
    """
    transfer = request.get("kv_transfer_params")
    given = transfer.get("prompt_token_ids") if isinstance(transfer, dict) else None
    if given and not request.get("echo"):
        return _given(given, request, options)
    if model.renderer and options.template is None:
        raise UnsupportedChatError(
            f"{model.renderer} renders this model's chats, not a template: send token ids"
        )
    if brings_template(request, model.templates, options):
        return ForeignChat(request)
    text = render_chat(request, model.templates, options, watch)
    return tokenize_rendered(model, request, options, text)


def tokenize_rendered(
    model: Model, request: Mapping[str, Any], options: ChatOptions, text: str
) -> Tokenized:
    """Tokenize what a template made of a chat-completions request. Raises TokenizationError."""
    ids = _encoded(model, text, request, options, default_special=False)
    return _tokenized(ids, rendered=text)


def tokenize_messages(
    model: Model,
    request: Mapping[str, Any],
    options: ChatOptions,
    watch: RenderWatch | None = None,
) -> Tokenized | ForeignChat:
    """Tokenize the body of a request to /v1/messages, as `tokenize_chat`."""
    template = model.templates.choose(options.template, tools=bool(request.get("tools")))
    chat = to_chat_completion(request, system_first=takes_system_first_only(template))
    return tokenize_chat(model, chat, options, watch)


def tokenize_completion(
    model: Model, request: Mapping[str, Any], options: ChatOptions
) -> Tokenized:
    """Tokenize the body of a completions request with one prompt. Raises TokenizationError."""
    if request.get("suffix"):
        raise ChatError("suffix: the model server does not accept one")
    prompt = request.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        (prompt,) = prompt
    if isinstance(prompt, str) and prompt:
        return _tokenized(_encoded(model, prompt, request, options, default_special=True))
    return _given(prompt, request, options)


def _given(ids: Any, request: Mapping[str, Any], options: ChatOptions) -> Tokenized:
    """Return the token ids that a request contains, truncated as it asks."""
    if not isinstance(ids, list) or not ids:
        raise ChatError("the prompt is empty, or neither a string nor a list of token ids")
    if not all(type(token) is int for token in ids):
        raise ChatError("the request has several prompts: send one request for each of them")
    if min(ids) < 0 or max(ids) > _MAX_ID:
        raise ChatError("a token id of the prompt is negative, or longer than 32 bits")
    truncation, kept = truncation_of(request, options.max_model_len), array("I", ids)
    return _tokenized(kept if truncation is None else truncation.cut(kept))


def _encoded(
    model: Model,
    text: str,
    request: Mapping[str, Any],
    options: ChatOptions,
    *,
    default_special: bool,
) -> Ids[int]:
    """Return the token ids of a text, with special tokens and truncated as its request asks.

    Args:
        default_special: whether special tokens are added where the request leaves it open.
    """
    requested = request.get("add_special_tokens")
    add_special = default_special if requested is None else bool(requested)
    truncation = truncation_of(request, options.max_model_len)
    ids = model.encode(text, add_special_tokens=add_special)
    if truncation is not None:
        before, after = (len(model.before), len(model.after)) if add_special else (0, 0)
        ids = truncation.cut(ids, before, after)
    return ids


def _tokenized(ids: Ids[int], rendered: str | None = None) -> Tokenized:
    return Tokenized(np.frombuffer(ids, dtype=np.uint32), rendered)
