"""How a prompt became token ids: which tokenizer, which template, which special tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tokenization.chat import TemplateChoice, chosen_template
from tokenization.prompt import ChatCompletion, Completion, Text, TokenIds

if TYPE_CHECKING:
    from tokenization.chat import ChatOptions
    from tokenization.model import Model
    from tokenization.prompt import Prompt, Tokenized


class PromptDescription(NamedTuple):
    """How a prompt became token ids; all of it is empty for token ids."""

    text: str = ""
    """The text that was tokenized."""
    encoder: str = ""
    """The library that made the ids."""
    tokenizer: str = ""
    """The tokenizer.json, with the directory that it is in."""
    template: str = ""
    """See `TemplateChoice`; empty for a prompt that is no chat."""
    unread_arguments: tuple[str, ...] = ()
    """Arguments of the template that it does not read."""
    added: tuple[int, ...] = ()
    """Special tokens that the tokenizer has put before the text."""


def describe(
    model: Model, prompt: Prompt, tokenized: Tokenized, options: ChatOptions
) -> PromptDescription:
    """Return how `prompt` became `tokenized`."""
    text, adds = _text_of(prompt, tokenized)
    if text is None:
        return PromptDescription()
    chat = TemplateChoice("", ())
    if isinstance(prompt, ChatCompletion):
        chat = chosen_template(prompt.body, model.templates, options)
    elif tokenized.rendered is not None:
        tools = bool(prompt.body.get("tools")) if not isinstance(prompt, Text | TokenIds) else False
        wanted = model.templates.choose(options.template, tools=tools)
        names = (name for name, each in model.templates.by_name.items() if each == wanted)
        chat = TemplateChoice(next(names, "configured"), ())
    return PromptDescription(
        text,
        model.encoder,
        "/".join(model.file.parts[-2:]),
        *chat,
        tuple(model.before) if adds else (),
    )


def _text_of(prompt: Prompt, tokenized: Tokenized) -> tuple[str | None, bool]:
    """Return the text that was tokenized, if any, and whether special tokens were added to it."""
    if isinstance(prompt, TokenIds):
        return None, False
    if isinstance(prompt, Text):
        return prompt.text, prompt.add_special_tokens
    requested = prompt.body.get("add_special_tokens")
    if isinstance(prompt, Completion):
        given = prompt.body.get("prompt")
        text = given[0] if isinstance(given, list) and len(given) == 1 else given
        return text if isinstance(text, str) else None, requested is None or bool(requested)
    return tokenized.rendered, bool(requested)
