"""TODO map."""

from __future__ import annotations

from tokenization.chat.anthropic import takes_system_first_only, to_chat_completion
from tokenization.chat.chat_completion import ChatOptions, ChatTemplates, render_chat
from tokenization.chat.content_format import ContentFormat

__all__ = [
    "ChatOptions",
    "ChatTemplates",
    "ContentFormat",
    "render_chat",
    "takes_system_first_only",
    "to_chat_completion",
]
