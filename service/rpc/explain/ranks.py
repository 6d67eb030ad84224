"""Why one rank has the score that it has, as a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvatlas.v1.explain_pb2 import (
    ExplainedRank,
    GroupMatch,
    MissingBlock,
    OtherHolder,
    ReuseLimit,
)
from kvatlas.v1.fleet_pb2 import CacheGroup

from service.rpc.explain.blocks import block_event
from service.rpc.trust_states import TRUST_STATES

if TYPE_CHECKING:
    from indexer import WorkerMatch
    from service.explaining import ExplainedRank as Explained
    from service.explaining.rank import GroupMatch as Group

_MOST_SKIPPED = 32


def explained_rank(rank: Explained) -> ExplainedRank:
    """Return the message of an explained rank."""
    facts = rank.facts
    match, status = facts.match, facts.status
    return ExplainedRank(
        rank=facts.worker.rank,
        reason=rank.reason,
        summary=rank.summary,
        score=match.score,
        matched_blocks=match.matched_blocks,
        matched_tokens=match.matched_blocks * facts.block_size,
        matched_blocks_by_tier=match.by_tier,
        reusable_tokens=match.reusable_tokens,
        reusable_is_bound=match.reusable_is_bound,
        reuse_limits=[ReuseLimit(**limit._asdict()) for limit in rank.limits],
        speculative_blocks=facts.speculative,
        first_missing=_missing(rank),
        held_after_missing=rank.held_after if rank.missing is not None else None,
        groups=map(_group, rank.groups),
        key_block_size=facts.key_block_size,
        trust_state=TRUST_STATES[status.state],
        trust_reason=status.reason,
        silent_seconds=status.silent,
        as_of_sequence=status.as_of,
        owner=facts.owner,
        skipped=dict(list(facts.report.skipped.items())[:_MOST_SKIPPED]),
    )


def _missing(rank: Explained) -> MissingBlock | None:
    missing, size = rank.missing, rank.facts.block_size
    if missing is None:
        return None
    return MissingBlock(
        index=missing.block,
        first_token=missing.first_token,
        end_token=missing.end_token,
        key=missing.key,
        next_best=[_other(match, size) for match in rank.next_best],
        events=map(block_event, rank.touches.events),
        events_searched=rank.touches.searched,
    )


def _other(match: WorkerMatch, block_size: int) -> OtherHolder:
    return OtherHolder(
        pod=match.worker.pod,
        rank=match.worker.rank,
        matched_blocks=match.matched_blocks,
        matched_tokens=match.matched_blocks * block_size,
    )


def _group(match: Group) -> GroupMatch:
    group = match.group
    return GroupMatch(
        group=CacheGroup(
            group=match.number,
            kind=group.kind,
            window=group.window or None,
            block_size=group.block_size,
        ),
        is_main=match.is_main,
        leading_blocks=match.leading,
        held_blocks=match.held,
    )
