"""Why an engine reuses fewer tokens of a prompt than are matched."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from indexer import Attention
from service.explaining.words import listed, some

if TYPE_CHECKING:
    from collections.abc import Iterator

    from indexer import CacheLayout
    from service.explaining.rank import RankFacts


class ReuseLimit(NamedTuple):
    """One reason."""

    reason: str
    """See `ReuseLimit` in explain.proto."""
    summary: str


def reuse_limits(facts: RankFacts) -> list[ReuseLimit]:
    """Return why `reusable_tokens` of a rank is less than its matched tokens, or may be too high.

    It goes the engine's way: from what is matched down to what the engine takes.
    """
    return [*_limits(facts), *_doubts(facts)]


def _limits(facts: RankFacts) -> Iterator[ReuseLimit]:
    match, size = facts.match, facts.key_block_size
    plan = facts.layout.plan(size)
    matched = match.matched_blocks * facts.block_size
    if match.reusable_tokens >= matched:
        return
    end = min(matched, (facts.tokens - 1) // size * size)
    if end < matched:
        yield ReuseLimit(
            "last_token",
            f"an engine computes the last token of a prompt itself, so of {some(matched, 'token')} "
            f"at most {end} in whole blocks are left",
        )
    whole = end - end % (plan.align * size)
    if whole < end:
        yield ReuseLimit(
            "engine_blocks",
            f"the engine reuses whole blocks of {plan.align * size} tokens, so {whole} are left",
        )
    if plan.dropped:
        whole = max(0, whole - plan.dropped * size)
        yield ReuseLimit(
            "draft_model", f"a draft model computes the last block again, so {whole} are left"
        )
    if match.reusable_tokens >= whole:
        return
    if plan.rules:
        yield ReuseLimit("groups", _needs(facts.layout, match.reusable_tokens))
    elif facts.layout.offload_chunks:
        tiers = listed(sorted(facts.layout.offload_chunks))
        yield ReuseLimit("offload_chunks", f"a tier ({tiers}) loads whole chunks of blocks only")


def _needs(layout: CacheLayout, reusable: int) -> str:
    kinds = sorted(
        {g.kind for g in layout.groups.values() if g.attention not in (Attention.MAIN, 0)}
    )
    return (
        f"the model also has groups of {listed(kinds)}: the engine reuses only what all of them "
        f"can serve, which is {some(reusable, 'token')}"
    )


def _doubts(facts: RankFacts) -> Iterator[ReuseLimit]:
    if facts.match.reusable_is_bound:
        yield ReuseLimit(
            "unknown_attention",
            "the engine may reuse less: the length of its attention chunks, its draft model or a "
            "kind of attention is neither in its events nor configured in [models]",
        )
