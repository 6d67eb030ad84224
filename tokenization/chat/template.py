"""Chat templates: Jinja, in the environment that Hugging Face's transformers set up for it.

The text is byte-identical to that of `apply_chat_template`. Templates run in an immutable sandbox
and are compiled once for all models.
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

_MAX_COMPILED = 256
_TAG = "CONTINUE_FINAL_MESSAGE_TAG "  # its last space shows whether the template strips content
_PARAMETERS = frozenset({"messages", "tools", "documents", "add_generation_prompt"})


class _Generation(Extension):
    """{% generation %}, which marks the assistant's text for training. Here it is only a scope."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's interface

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Any) -> str:
        text: str = caller()
        return text


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
    return datetime.now().strftime(form)  # noqa: DTZ005 - the engine uses its host's local time


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
    """A compiled template; `compile_template` makes them.

    Attributes:
        text: the source.
        wants: the form of a message's content.
        variables: names of the variables that it reads and does not set.
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
        """Return the chat as text.

        Args:
            messages: in the form of content that the template wants.
            tools: for the model to call.
            documents: for the model to refer to.
            add_generation_prompt: whether the text ends with the beginning of an answer.
            continue_final_message: the field of the last message that the text ends within; True
                for its content, False if the message is complete.
            variables: whatever else the template reads.

        Raises:
            ChatError: the template fails, or the last message cannot be continued.
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
                **{k: v for k, v in (variables or {}).items() if k not in _PARAMETERS},
            )
        except Exception as error:
            raise ChatError(f"the chat template fails: {error}") from error
        return _cut(text, final) if continue_final_message else text

    def _marked(self, messages: list[Message], field: str) -> tuple[list[Message], str]:
        """Return the messages with a tag at the end of the last one's field, and its text."""
        *others, last = messages
        last = copy.deepcopy(last)
        content = last.get(field)
        if content is None or field not in self.text:
            raise ChatError(f"continue_final_message: there is no {field} to continue")
        if isinstance(content, str):
            last[field] = content + _TAG
            return [*others, last], content
        for part in reversed(content) if isinstance(content, list) else ():
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                text = part["text"]
                part["text"] = text + _TAG
                return [*others, last], text
        raise ChatError("continue_final_message: the last message has no text to continue")


def _cut(text: str, final: str) -> str:
    """Return `text` up to the tag. `final` is the text of the last message."""
    if final.strip() not in text or _TAG.strip() not in text:
        raise ChatError(
            "continue_final_message: the template does not show the last message unchanged"
        )
    end = text.rindex(_TAG.strip())
    is_stripped = not text.startswith(_TAG, end)
    return text[:end].rstrip() if is_stripped else text[:end]


@lru_cache(_MAX_COMPILED)
def compile_template(text: str) -> ChatTemplate:
    """Return the template, compiled if it is a new one. Raises TemplateBrokenError."""
    return ChatTemplate(text)
