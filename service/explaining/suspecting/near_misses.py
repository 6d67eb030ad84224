"""Suspects that single ranks show: a block that they hold a part of, or with other images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.explaining.suspecting.suspects import Suspect
from service.explaining.words import listed, some

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator, Sequence

    from kvevents import WorkerStream
    from service.explaining.asked import AskedPrompt
    from service.explaining.rank import ExplainedRank


def near_misses(asked: AskedPrompt, ranks: Sequence[ExplainedRank]) -> Iterator[Suspect]:
    """Yield what the ranks nearly hold."""
    parts = [rank for rank in ranks if _held_tokens(rank) and not rank.facts.match.matched_blocks]
    if parts:
        best = max(parts, key=_held_tokens)
        size = max(
            (group.group.block_size for group in best.groups), default=best.facts.key_block_size
        )
        yield _suspect(
            "other_block_size",
            asked,
            parts,
            _held_tokens(best),
            f"{some(_held_tokens(best), 'token')} of this prompt, which make no whole block: "
            f"answers count in blocks of {asked.block_size} tokens (index.block_size), and the "
            f"engine in blocks of {size}. Set index.block_size to the engines' block size, or ask "
            "about longer prompts",
        )
    others = [rank for rank in ranks if rank.has_other_items]
    if others:
        missing = others[0].missing
        start = 0 if missing is None else missing.first_token
        yield _suspect(
            "other_items",
            asked,
            others,
            start,
            f"the tokens from {start} on with other images or the like in them. Check that "
            "multimodal_items has all items of the prompt, with the hashes of the engine",
        )


def stores_with_other_items(stream: WorkerStream, tokens: array[int]) -> bool:
    """Whether one of the last events stored a block of these tokens with images in it."""
    size = len(tokens)
    for recent in stream.recent.newest_first():
        event = recent.stored
        if event is None or not event.extra_keys:
            continue
        for number, extras in enumerate(event.extra_keys):
            start = number * event.block_size
            for first in range(start, start + event.block_size, size) if extras else ():
                if event.token_ids[first : first + size] == tokens and _has_items(extras):
                    return True
    return False


def _has_items(extras: object) -> bool:
    """Whether extra keys of a block contain an image: a pair of its hash and its offset."""
    return isinstance(extras, list | tuple) and any(
        isinstance(entry, list | tuple) and len(entry) == 2 for entry in extras
    )


def _held_tokens(rank: ExplainedRank) -> int:
    return rank.leading * rank.facts.key_block_size


def _suspect(
    kind: str, asked: AskedPrompt, ranks: Sequence[ExplainedRank], tokens: int, what: str
) -> Suspect:
    pods = [*dict.fromkeys(rank.facts.worker.pod for rank in ranks)]
    hold = "holds" if len(pods) == 1 else "hold"
    summary = f"{listed(pods)} {hold} {what}."
    blocks = tokens // asked.block_size
    return Suspect(kind, summary, asked.model, asked.lora_name, None, pods, blocks, tokens)
