"""Spans of tokenization: how long a prompt waited for a thread, and how long that took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from service.rpc import PromptReader
from service.tracing.current import MODEL, traced
from tokenization import TokenIds

if TYPE_CHECKING:
    from tokenization import Prompt, Tokenized


class TracedPromptReader(PromptReader):
    """Traces the prompts of traced calls, except those that are token ids."""

    @override
    async def tokenize(self, model: str, prompt: Prompt, timeout: float | None = None) -> Tokenized:
        call = traced()
        if call is None or isinstance(prompt, TokenIds):
            return await super().tokenize(model, prompt, timeout)
        with call.step("tokenize", {MODEL: model}) as span:
            tokenized = await super().tokenize(model, prompt, timeout)
            span.set_attribute("kvatlas.tokens", len(tokenized.ids))
            span.set_attribute("kvatlas.queue_seconds", tokenized.queue_seconds)
            span.set_attribute("kvatlas.work_seconds", tokenized.work_seconds)
        return tokenized
