"""Requests as they are sent to a model server -> the token ids that it computes."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, NamedTuple

from tokenization.chat import ChatOptions, render_chat, takes_system_first_only, to_chat_completion
from tokenization.encode import truncation_of
from tokenization.errors import ChatError, UnsupportedChatError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenization.model import Model


_MOST_ID = 2**32 - 1


class Tokenized(NamedTuple):
    """ids: 'I', of the tokens. text: that they are of, None if they were given as they are."""

    ids: array[int]
    text: str | None


def tokenize_chat(model: Model, request: Mapping[str, Any], options: ChatOptions) -> Tokenized:
    """A chat-completions request. Raises TokenizationError."""
    transfer = request.get("kv_transfer_params")
    given = transfer.get("prompt_token_ids") if isinstance(transfer, dict) else None
    if given and not request.get("echo"):
        return _given(given, request, options)
    if model.renders and options.template is None:
        raise UnsupportedChatError(
            f"chats of this model are rendered by {model.renders}, not by a template: send token "
            "ids"
        )
    text = render_chat(request, model.templates, options)
    return _encoded(model, text, request, options, usual=False)


def tokenize_messages(model: Model, request: Mapping[str, Any], options: ChatOptions) -> Tokenized:
    """A request to /v1/messages. Raises TokenizationError."""
    template = model.templates.choose(options.template, tools=bool(request.get("tools")))
    chat = to_chat_completion(request, system_first=takes_system_first_only(template))
    return tokenize_chat(model, chat, options)


def tokenize_completion(
    model: Model, request: Mapping[str, Any], options: ChatOptions
) -> Tokenized:
    """A completions request with one prompt. Raises TokenizationError."""
    if request.get("suffix"):
        raise ChatError("suffix: the model server does not take one")
    prompt = request.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        (prompt,) = prompt
    if isinstance(prompt, str) and prompt:
        return _encoded(model, prompt, request, options, usual=True)
    return _given(prompt, request, options)


def _given(ids: Any, request: Mapping[str, Any], options: ChatOptions) -> Tokenized:
    if not isinstance(ids, list) or not ids:
        raise ChatError("the prompt is neither a text nor a list of token ids, or it is empty")
    if not all(type(each) is int for each in ids):
        raise ChatError("the prompt is several prompts: ask for each of them")
    if min(ids) < 0 or max(ids) > _MOST_ID:
        raise ChatError("a token id of the prompt is negative, or longer than 32 bits")
    truncation, found = truncation_of(request, options.most_tokens), array("I", ids)
    return Tokenized(found if truncation is None else truncation.cut(found), None)


def _encoded(
    model: Model, text: str, request: Mapping[str, Any], options: ChatOptions, *, usual: bool
) -> Tokenized:
    said = request.get("add_special_tokens")
    add = usual if said is None else bool(said)
    truncation = truncation_of(request, options.most_tokens)
    ids = model.encode(text, add_special_tokens=add)
    if truncation is not None:
        before, after = (len(model.before), len(model.after)) if add else (0, 0)
        ids = truncation.cut(ids, before, after)
    return Tokenized(ids, text)
