"""The services of llm-d-kv-cache, under their own names: its clients find them here.

In path order:

    indexer         texts -> scores of pods
    tokenization    texts and chats -> token ids
    prompts         requests for tokens -> prompts
"""

from __future__ import annotations

from service.rpc.llmd.indexer import LlmdIndexerServicer
from service.rpc.llmd.tokenization import LlmdTokenizationServicer

__all__ = ["LlmdIndexerServicer", "LlmdTokenizationServicer"]
