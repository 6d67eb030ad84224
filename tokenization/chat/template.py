"""Chat templates: Jinja, in the environment that Hugging Face's transformers give it.

Rendering is byte-identical to `apply_chat_template`, in an immutable sandbox. Templates are
compiled once, whoever has them.
"""

from __future__ import annotations

import copy
import json
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tokenization.chat.content_format import content_format
from tokenization.errors import ChatError, TemplateBrokenError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2.parser import Parser

Message = dict[str, Any]

_MOST_COMPILED = 256
_TAG = "CONTINUE_FINAL_MESSAGE_TAG "
_OURS = frozenset({"messages", "tools", "documents", "add_generation_prompt"})


class _Generation(Extension):
    """{% generation %}, which tells a trainer what the assistant has said: a scope of its own."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja has it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: Any) -> str:
        said: str = caller()
        return said


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.exceptions.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)  # noqa: DTZ005 - the engine's host's time, as ours is


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


_ENVIRONMENT = _environment()


class ChatTemplate:
    """A compiled template; see `compile_template`.

    text: its source. wants: the form of a message's content. variables: all that it reads and does
    not set.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            tree = _ENVIRONMENT.parse(text)
            self._template = _ENVIRONMENT.from_string(text)
        except (jinja2.TemplateError, RecursionError) as error:
            raise TemplateBrokenError(str(error)) from error
        self.wants = content_format(tree)
        self.variables = frozenset(meta.find_undeclared_variables(tree))

    def render(
        self,
        messages: list[Message],
        *,
        tools: list[dict[str, Any]] | None = None,
        documents: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The chat as text.

        continue_final_message: the text ends within the last message, in this field of it (True:
        content). variables: whatever else the template reads. Raises ChatError.
        """
        final = ""
        if continue_final_message:
            field = "content" if continue_final_message is True else continue_final_message
            messages, final = self._marked(messages, field)
        try:
            text = self._template.render(
                messages=messages,
                tools=tools,
                documents=documents,
                add_generation_prompt=add_generation_prompt,
                **{k: v for k, v in (variables or {}).items() if k not in _OURS},
            )
        except Exception as error:
            raise ChatError(f"the chat template fails: {error}") from error
        return _cut(text, final) if continue_final_message else text

    def _marked(self, messages: list[Message], field: str) -> tuple[list[Message], str]:
        """The messages, with a mark at the end of the last one's `field`; and what it says."""
        *others, last = messages
        last = copy.deepcopy(last)
        said = last.get(field)
        if said is None or field not in self.text:
            raise ChatError(f"continue_final_message: there is no {field} to be continued")
        if isinstance(said, str):
            last[field] = said + _TAG
            return [*others, last], said
        for part in reversed(said) if isinstance(said, list) else ():
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                text = part["text"]
                part["text"] = text + _TAG
                return [*others, last], text
        raise ChatError("continue_final_message: the last message has no text to be continued")


def _cut(text: str, final: str) -> str:
    if final.strip() not in text or _TAG.strip() not in text:
        raise ChatError(
            "continue_final_message: the template does not show the last message as it is"
        )
    at = text.rindex(_TAG.strip())
    is_whole = text.startswith(_TAG, at)
    return text[:at] if is_whole else text[:at].rstrip()  # the template strips what it is given


@lru_cache(_MOST_COMPILED)
def compile_template(text: str) -> ChatTemplate:
    """The template, compiled the first time. Raises TemplateBrokenError."""
    return ChatTemplate(text)
