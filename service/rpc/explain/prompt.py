"""What became of a prompt: its text, its tokens, its blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvatlas.v1.explain_pb2 import ExplainedItem, ExplainedPrompt

from service.explaining.words import short, some

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kvatlas.v1.scoring_pb2 import ScoreRequest

    from indexer import PromptKeys
    from service.explaining import AskedPrompt
    from tokenization import PromptDescription

MOST_CHARACTERS = 8192  # of the text
_MOST_TOKENS = 64
_MOST_KEYS = 16
_MOST_ITEMS = 64
_LARGEST_ID = 2**32 - 1


def explained_prompt(
    request: ScoreRequest, asked: AskedPrompt, keys: PromptKeys, described: PromptDescription
) -> ExplainedPrompt:
    """Return what became of the prompt of a request."""
    full = asked.total_blocks * asked.block_size
    ids, items = asked.tokens, sorted(asked.items, key=lambda item: item.offset)
    salt_source = "cache_salt" if request.cache_salt else "prompt"
    message = ExplainedPrompt(
        input=request.prompt.WhichOneof("input"),
        text=described.text[:MOST_CHARACTERS],
        text_characters=len(described.text),
        total_tokens=len(ids),
        first_token_ids=_shown(ids[:_MOST_TOKENS]),
        tail_token_ids=_shown(ids[full : full + _MOST_TOKENS]),
        tail_tokens=len(ids) - full,
        total_blocks=asked.total_blocks,
        block_size=asked.block_size,
        added_token_ids=described.added,
        encoder=described.encoder,
        tokenizer=described.tokenizer,
        template=described.template,
        salt_source=salt_source if asked.salt else "",
        lora_name=asked.lora_name,
        items=[
            ExplainedItem(
                hash=item.hash,
                offset=item.offset,
                length=item.length,
                first_block=item.offset // asked.block_size,
                end_block=-(-(item.offset + item.length) // asked.block_size),
            )
            for item in items[:_MOST_ITEMS]
        ],
        root_key=asked.scheme.root(asked.lora_name),
        first_keys=keys.block_keys(asked.block_size)[:_MOST_KEYS],
    )
    message.summary = _summary(message, len(items))
    return message


def _shown(ids: Iterable[int]) -> list[int]:
    return [min(token, _LARGEST_ID) for token in ids]


def _summary(prompt: ExplainedPrompt, items: int) -> str:
    by = ""
    if prompt.encoder:
        by = f", made by {prompt.encoder} with {short(prompt.tokenizer)}"
    if prompt.template:
        by += f" after the {short(prompt.template)} chat template"
    text = (
        f"The prompt ({prompt.input}) has {some(prompt.total_tokens, 'token')}{by}: "
        f"{some(prompt.total_blocks, 'full block')} of {prompt.block_size}, and "
        f"{some(prompt.tail_tokens, 'token')} after them."
    )
    parts = []
    if prompt.added_token_ids:
        parts.append(f"{some(len(prompt.added_token_ids), 'special token')} added in front")
    if prompt.lora_name:
        parts.append(f"adapter {short(prompt.lora_name)!r}")
    if prompt.salt_source:
        parts.append("a cache salt")
    if items:
        parts.append(some(items, "image or the like"))
    return f"{text} In its keys: {', '.join(parts)}." if parts else text
