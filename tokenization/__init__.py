"""Texts and requests -> token ids, as the model server would.

In path order: `tokenizers` has each model loaded once and works off the event loop, `files` finds a
model's files and `model` reads them; `requests` takes a completion or a chat, `anthropic` makes a
chat of messages in that form, `chat` takes of it what bears on the text, `messages` what a template
is given, `template` renders it in the form of content that `content_format` finds it wants;
`segments` takes a text's ids from a cache, cut where `cuts` allows, or has `encoders` make them;
`truncation` cuts; `resolve` writes a tokenizer as an engine runs it; `errors` says why not.
"""

from __future__ import annotations

from tokenization.chat import ChatOptions, ContentFormat
from tokenization.errors import (
    ChatError,
    TemplateBrokenError,
    TokenizationError,
    TokenizerBrokenError,
    TokenizerMissingError,
    TokenizersBusyError,
    UnsupportedChatError,
)
from tokenization.files import ModelFiles
from tokenization.requests import Tokenized
from tokenization.resolve import ResolveError, resolve_tokenizer
from tokenization.tokenizers import TokenizationLimits, Tokenizers

__all__ = [
    "ChatError",
    "ChatOptions",
    "ContentFormat",
    "ModelFiles",
    "ResolveError",
    "TemplateBrokenError",
    "TokenizationError",
    "TokenizationLimits",
    "Tokenized",
    "TokenizerBrokenError",
    "TokenizerMissingError",
    "Tokenizers",
    "TokenizersBusyError",
    "UnsupportedChatError",
    "resolve_tokenizer",
]
