"""A chat -> the text that an engine would tokenize, byte for byte.

In path order:

    anthropic          a request to /v1/messages -> a chat-completions request
    chat_completion    a chat-completions request -> the text of its chat
    messages           a request's messages -> the messages that a template is given
    template           compiles and renders chat templates, as transformers do
    sandbox            the environment that they run in
    filters            Jinja's filters that can make large values of small ones
    expansion          which operations can do that, too
    watch              how long a rendering may take, and who waits for it
    content_format     whether a template wants a message's content as text or as parts
"""

from __future__ import annotations

from tokenization.chat.anthropic import takes_system_first_only, to_chat_completion
from tokenization.chat.chat_completion import (
    ChatOptions,
    ChatTemplates,
    TemplateChoice,
    brings_template,
    chosen_template,
    render_chat,
)
from tokenization.chat.content_format import ContentFormat
from tokenization.chat.watch import Caller, RenderLimits, RenderWatch

__all__ = [
    "Caller",
    "ChatOptions",
    "ChatTemplates",
    "ContentFormat",
    "RenderLimits",
    "RenderWatch",
    "TemplateChoice",
    "brings_template",
    "chosen_template",
    "render_chat",
    "takes_system_first_only",
    "to_chat_completion",
]
