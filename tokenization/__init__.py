"""Texts and requests -> token ids, exactly as the model server would compute them.

In path order:

    prompt        the forms of a prompt, as one union
    tokenizers    all models, and whatever is tokenized with them
    queue         the texts that wait for a thread
    pace          how long a text is likely to take
    processes     renders the templates that requests bring, in processes that can be killed
    files         where a model's tokenizer.json is
    model         one model's files, loaded: tokenizer, special tokens, chat templates
    description   how a prompt became token ids, for people
    requests      a text or a request -> its token ids, with a loaded model
    chat          a chat -> the text that the model's template makes of it
    encode        a text -> token ids, by the fastest library and from a cache of segments
    resolve       rewrites a tokenizer as transformers, and so the engine, builds it
    errors        why a prompt could not be tokenized
"""

from __future__ import annotations

from tokenization.chat import ChatOptions, ContentFormat, RenderLimits
from tokenization.description import PromptDescription
from tokenization.errors import (
    CallerGoneError,
    ChatError,
    TemplateBrokenError,
    TemplateLimitError,
    TokenizationError,
    TokenizerBrokenError,
    TokenizerMissingError,
    TokenizersBusyError,
    UnsupportedChatError,
)
from tokenization.files import ModelFiles
from tokenization.prompt import (
    AnthropicMessages,
    ChatCompletion,
    Completion,
    LaterObject,
    Prompt,
    RequestBody,
    Text,
    TokenIds,
    Tokenized,
)
from tokenization.queue import WAITED_BOUNDS, Drop, QueueLimits
from tokenization.resolve import ResolveError, resolve_tokenizer
from tokenization.tokenizers import TokenizationLimits, Tokenizers

__all__ = [
    "WAITED_BOUNDS",
    "AnthropicMessages",
    "CallerGoneError",
    "ChatCompletion",
    "ChatError",
    "ChatOptions",
    "Completion",
    "ContentFormat",
    "Drop",
    "LaterObject",
    "ModelFiles",
    "Prompt",
    "PromptDescription",
    "QueueLimits",
    "RenderLimits",
    "RequestBody",
    "ResolveError",
    "TemplateBrokenError",
    "TemplateLimitError",
    "Text",
    "TokenIds",
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
