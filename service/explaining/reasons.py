"""Why the prefix of a rank ends, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from indexer import TrustState
from service.explaining.touches import CLEARED
from service.explaining.words import age, by_tier, listed, short, some

if TYPE_CHECKING:
    from service.explaining.rank import ExplainedRank
    from service.explaining.touches import Touch

_TRUST = {
    TrustState.EXACT: "",
    TrustState.PARTIAL: "It may hold more than is known: it is partial ({reason}).",
    TrustState.DEGRADED: "Some of what is listed may be gone: it is degraded ({reason}).",
    TrustState.RECOVERING: "Events are being fetched again: it is recovering ({reason}).",
    TrustState.STALE: "Nothing confirms what is listed any more: it is stale ({reason}).",
    TrustState.UNKNOWN: "",
}
_MOST_REASONS = 3


def summary_of(rank: ExplainedRank) -> str:
    """Return what a rank holds, why no more, and how far that can be trusted."""
    status = rank.facts.status
    trust = _TRUST[status.state].format(reason=short(status.reason))
    return " ".join(part for part in (_prefix(rank), _why(rank), trust) if part)


def _prefix(rank: ExplainedRank) -> str:
    facts = rank.facts
    total, matched = facts.tokens // facts.block_size, facts.match.matched_blocks
    if not total:
        return ""
    tiers = f" ({by_tier(facts.match.by_tier)})" if facts.match.by_tier else ""
    blocks = f"holds {matched} of {some(total, 'block')}{tiers}"
    reusable = f"and can reuse {some(facts.match.reusable_tokens, 'token')}"
    about = some(facts.speculative, "further block")
    soon = f" It is about to hold {about}, as was recorded." if facts.speculative else ""
    return f"It {blocks}, {reusable}.{soon}{_zero(rank)}"


def _zero(rank: ExplainedRank) -> str:
    """Return why a rank that holds blocks has no score."""
    match = rank.facts.match
    if match.score or not match.matched_blocks:
        return ""
    if rank.facts.layout.plan(rank.facts.key_block_size).rules:
        return " Its score is 0: not all groups could serve them."
    return f" Its score is 0: {listed(sorted(match.by_tier))} has no weight (index.tier_weights)."


def _why(rank: ExplainedRank) -> str:
    match rank.reason:
        case "whole_prompt":
            return ""
        case "no_full_block":
            facts = rank.facts
            return (
                f"The prompt has {some(facts.tokens, 'token')}, and a block {facts.block_size}: "
                "only full blocks can match."
            )
        case "never_heard":
            return (
                "No event of it has ever arrived: is the engine started with KV events, and is "
                "its publisher one of the sources?"
            )
        case "part_of_engine_block":
            sizes = {g.block_size for g in rank.facts.layout.groups.values()}
            return (
                f"The engine's own blocks have {max(sizes, default=0)} tokens, and the rest of the "
                "prompt is only a part of one."
            )
        case _:
            return f"{_block(rank)} {_what_became(rank)}.{_waiting_behind(rank)}"


def _block(rank: ExplainedRank) -> str:
    missing = rank.missing
    if missing is None:
        return "The next block"
    return f"Block {missing.block} (tokens {missing.first_token} to {missing.end_token - 1})"


def _waiting_behind(rank: ExplainedRank) -> str:
    if not rank.held_after:
        return ""
    return f" It holds {some(rank.held_after, 'later block')}, which a prefix does not reach."


def _what_became(rank: ExplainedRank) -> str:
    facts, touches = rank.facts, rank.touches
    match rank.reason:
        case "removed" | "cleared" if touches.events:
            return _gone(rank.reason, touches.events[0])
        case "waiting":
            return (
                "was announced, but it continues a block that is not known: kvatlas joined late, "
                "or lost events. A replay socket or a restart of the engine helps"
            )
        case "not_in_all_groups":
            lacking = [str(g.number) for g in rank.groups if g.is_main and g.leading == _at(rank)]
            return f"is held, but not in every group of full attention: not in {listed(lacking)}"
        case "not_understood":
            return (
                "was stored by one of the last events, and is not held: the index has evicted it "
                f"for its memory limit, or the event could not be applied{_skipped(rank)}"
            )
        case "holds_nothing":
            return f"is not held, nor is any block of any prompt{_skipped(rank)}"
        case "part_of_block":
            return (
                f"is not held. Of the answer's block around it, of {facts.block_size} tokens, it "
                f"holds a part, in blocks of {facts.key_block_size} tokens"
            )
        case "unknown":
            owner = f" {short(facts.owner)}" if facts.owner else ""
            return (
                f"is not held as far as replica{owner} has written, which applies this rank's "
                "events. Only that replica remembers the last ones: ask it"
            )
        case _:
            return _never_stored(rank)


def _gone(reason: str, newest: Touch) -> str:
    when = f"{age(newest.age)} (frame {newest.sequence})"
    if reason == "removed":
        return f"was removed from {short(newest.tier)} by the engine {when}"
    return f"went when the engine removed all of its blocks {when}"


def _never_stored(rank: ExplainedRank) -> str:
    touches = rank.touches
    searched = f"{some(touches.searched, 'event')} remembered"
    clears = any(touch.type == CLEARED for touch in touches.events)
    cleared = ", and one of them removed all blocks" if clears else ""
    return (
        f"was never stored as far as is known: none of its last events ({searched}) names it"
        f"{cleared}{_skipped(rank)}"
    )


def _at(rank: ExplainedRank) -> int:
    return -1 if rank.missing is None else rank.missing.block


def _skipped(rank: ExplainedRank) -> str:
    """Return which events could not be applied, the commonest reasons first."""
    skipped = sorted(rank.facts.report.skipped.items(), key=lambda item: -item[1])
    if not skipped:
        return ""
    reasons = ", ".join(f"{short(reason)} {count}" for reason, count in skipped[:_MOST_REASONS])
    return f". Not all of its events could be applied ({reasons})"
