"""One rank: where its prefix of a prompt ends, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from indexer import TrustState
from service.explaining.held import groups_of, in_main_groups, leading, main_groups
from service.explaining.reuse import reuse_limits
from service.explaining.touches import CLEARED, Touches

if TYPE_CHECKING:
    from array import array
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from indexer import CacheLayout, Group, TrustStatus, Worker, WorkerMatch
    from kvevents import StreamReport
    from service.explaining.reuse import ReuseLimit
    from service.explaining.touches import Touch


class GroupMatch(NamedTuple):
    """What one cache group of a rank holds of a prompt; in blocks of the rank's keys."""

    number: int
    group: Group
    is_main: bool
    leading: int
    held: int


class MissingBlock(NamedTuple):
    """The first block of a prompt that a rank does not hold."""

    block: int
    """Its index in the prompt, in blocks of the rank's keys."""
    first_token: int
    end_token: int
    key: int


@dataclass(slots=True)
class RankFacts:
    """What is known of one rank, and of what it holds of the prompt."""

    worker: Worker
    match: WorkerMatch
    status: TrustStatus
    report: StreamReport
    layout: CacheLayout
    owner: str
    blocks: int
    """Blocks that it holds of any prompts."""
    held: Mapping[int, NDArray[np.bool_]] | None
    """Cache group -> whether it holds each block; None if that is not known here."""
    keys: array[int]
    """The prompt's block keys, of `key_block_size` tokens each."""
    key_block_size: int
    tokens: int
    """Of the prompt."""
    block_size: int
    """Tokens of a block of an answer."""
    speculative: int = 0
    """Blocks of an answer beyond the matched ones that it is about to hold."""


@dataclass(slots=True)
class ExplainedRank:
    """Why one rank has the score that it has."""

    facts: RankFacts
    reason: str = ""
    """See `ExplainedRank` in explain.proto."""
    summary: str = ""
    leading: int = 0
    """Leading blocks of the rank's keys that it holds."""
    missing: MissingBlock | None = None
    held_after: int | None = None
    """Blocks of the rank's keys that it holds after the first missing one."""
    groups: Sequence[GroupMatch] = ()
    limits: Sequence[ReuseLimit] = ()
    touches: Touches = field(default_factory=lambda: Touches([], 0))
    next_best: Sequence[WorkerMatch] = ()
    has_other_items: bool = False
    """Whether it has stored the first missing block with other images in it."""


def measure(facts: RankFacts) -> ExplainedRank:
    """Return where the prefix of a rank ends; reason and summary are still missing."""
    ratio = max(1, facts.block_size // facts.key_block_size)
    rank = ExplainedRank(facts, limits=reuse_limits(facts))
    if facts.held is None:  # another replica knows the single blocks
        rank.leading = min(len(facts.keys), facts.match.matched_blocks * ratio)
    else:
        main = in_main_groups(facts.held, facts.layout, len(facts.keys))
        rank.leading = leading(main)
        rank.held_after = int(main.sum()) - rank.leading
        rank.groups = _groups(facts, facts.held)
    if rank.leading < len(facts.keys):
        start = rank.leading * facts.key_block_size
        key = facts.keys[rank.leading]
        rank.missing = MissingBlock(rank.leading, start, start + facts.key_block_size, key)
    return rank


def _groups(facts: RankFacts, held: Mapping[int, NDArray[np.bool_]]) -> list[GroupMatch]:
    main = main_groups(facts.layout)
    return [
        GroupMatch(
            number,
            group._replace(block_size=group.block_size or facts.key_block_size),
            number in main,
            leading(held[number]),
            int(held[number].sum()),
        )
        for number, group in sorted(groups_of(facts.layout).items())
    ]


def sought_keys(rank: ExplainedRank) -> set[int]:
    """Return the keys under which an event may have named the first missing block.

    An engine hash means the last of the blocks that make an engine's block.
    """
    if rank.missing is None:
        return set()
    facts, block = rank.facts, rank.missing.block
    sizes = {group.block_size // facts.key_block_size for group in facts.layout.groups.values()}
    ends = {(block // span + 1) * span - 1 for span in sizes if span > 1}
    return {facts.keys[end] for end in {block, *ends} if end < len(facts.keys)}


def reason_of(rank: ExplainedRank, *, is_local: bool, waits: bool) -> str:
    """Return why a rank's prefix ends, in one word; see `ExplainedRank` in explain.proto.

    is_local: whether its events are applied here. waits: whether the first missing block was
    announced, and waits for its parent or its meaning.
    """
    facts, match = rank.facts, rank.facts.match
    total = facts.tokens // facts.block_size
    if not total:
        return "no_full_block"
    if rank.missing is None:
        whole = match.matched_blocks == total
        return "whole_prompt" if whole else "part_of_engine_block"
    if facts.status.state is TrustState.UNKNOWN:
        return "never_heard"
    if rank.missing is not None and _is_held_in_a_group(rank):
        return "not_in_all_groups"
    touched = _reason_of_touches(rank.touches.events)
    if touched:
        return touched
    if waits:
        return "waiting"
    if not facts.blocks:
        return "holds_nothing"
    if not is_local:
        return "unknown"
    ratio = max(1, facts.block_size // facts.key_block_size)
    return "part_of_block" if rank.leading % ratio else "never_stored"


def _is_held_in_a_group(rank: ExplainedRank) -> bool:
    main, held = main_groups(rank.facts.layout), rank.facts.held
    return bool(
        held is not None
        and rank.missing is not None
        and any(held[number][rank.missing.block] for number in main)
    )


def _reason_of_touches(touches: Sequence[Touch]) -> str:
    """Return what the newest events say of a block that is not held; empty if they say nothing."""
    if not touches or all(touch.type == CLEARED for touch in touches):
        return ""  # nobody knows whether the block was there before
    return {"BlockRemoved": "removed", CLEARED: "cleared"}.get(touches[0].type, "not_understood")
