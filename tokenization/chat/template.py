"""Chat templates: Jinja, in the environment that Hugging Face's transformers set up for it.

The text is byte-identical to that of `apply_chat_template`. Templates run in an immutable sandbox
and are compiled once for all models.
"""

from __future__ import annotations

import copy
import re
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols

from tokenization.chat.content_format import content_format
from tokenization.chat.sandbox import BoundedEnvironment
from tokenization.chat.watch import RenderLimits, RenderWatch, watched
from tokenization.errors import (
    CallerGoneError,
    ChatError,
    TemplateBrokenError,
    TemplateLimitError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2.parser import Parser

Message = dict[str, Any]

_MAX_COMPILED = 256
_MAX_REASON = 200  # characters of an error's text
_MAX_QUOTE = 12  # characters of a message in it
_PLAIN_ERRORS = (jinja2.TemplateError, TypeError, RecursionError, ArithmeticError)
_MAX_TIME_FORM = 256  # characters of a format of the time
_TAG = "CONTINUE_FINAL_MESSAGE_TAG "  # its last space shows whether the template strips content


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


def _strftime_now(form: str) -> str:
    if len(form) > _MAX_TIME_FORM or re.search(r"\d{5}", form):
        raise TemplateLimitError("formats the time with a width that is too large")
    return datetime.now().strftime(form)  # noqa: DTZ005 - the engine uses its host's local time


def _environment() -> BoundedEnvironment:
    environment = BoundedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
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
            self.wants = content_format(tree)
            self.variables = frozenset(meta.find_undeclared_variables(tree))
        except jinja2.TemplateSyntaxError as error:
            detail = f"line {error.lineno}: {error.message}"
            raise TemplateBrokenError(detail[:_MAX_REASON]) from error
        except MemoryError:
            raise
        except Exception as error:  # of Jinja, or of Python's own compiler
            raise TemplateBrokenError(type(error).__name__) from error

    def render(
        self,
        messages: list[Message],
        *,
        tools: list[dict[str, Any]] | None = None,
        documents: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        variables: Mapping[str, Any] | None = None,
        watch: RenderWatch | None = None,
    ) -> str:
        """Return the chat as text.

        Args:
            messages: in the form of content that the template wants.
            tools, documents: for the model to call, to refer to.
            add_generation_prompt: whether the text ends with the beginning of an answer.
            continue_final_message: the field of the last message that the text ends within; True
                for its content, False if the message is complete.
            variables: whatever else the template reads.
            watch: stops the template at its limits; None for one with the default limits.

        Raises:
            ChatError: the template fails, or the last message cannot be continued.
            TemplateLimitError, CallerGoneError: the watch has stopped it.
        """
        final = ""
        if continue_final_message:
            field = "content" if continue_final_message is True else continue_final_message
            messages, final = self._marked(messages, field)
        arguments = {
            **(variables or {}),
            "messages": messages,
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt,
        }
        text = self._text(arguments, watch or RenderWatch(RenderLimits()))
        return _cut(text, final) if continue_final_message else text

    def _text(self, arguments: dict[str, Any], watch: RenderWatch) -> str:
        try:
            with watched(watch):
                text = self._template.render(arguments)
        except (TemplateLimitError, CallerGoneError, MemoryError):
            raise
        except Exception as error:
            reason = _reason(error, arguments["messages"])
            raise ChatError(f"the chat template fails: {reason}") from error
        watch.check_text(text)
        return text

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


def _reason(error: Exception, messages: list[Message]) -> str:
    """Return why a template failed, in few words and none of the messages'."""
    if not isinstance(error, _PLAIN_ERRORS):  # others may quote a value
        return type(error).__name__
    reason = str(error)[: 2 * _MAX_REASON]
    for message in messages:
        content = message.get("content")
        texts = [content] if isinstance(content, str) else content or []
        for text in texts:
            start = str(text["text"] if isinstance(text, dict) else text)[:_MAX_QUOTE]
            if len(start) == _MAX_QUOTE and start in reason:
                reason = reason[: reason.index(start)] + "..."
    return reason[:_MAX_REASON]


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
