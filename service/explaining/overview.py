"""An explanation in one or two sentences."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from service.explaining.words import listed, short, some

if TYPE_CHECKING:
    from service.explaining.explainer import ExplainedPod, Explanation


def overview(explanation: Explanation) -> str:
    """Return what became of the prompt in the whole fleet, and what to look at."""
    parts = [_holders(explanation)]
    if explanation.unknown and not explanation.pods:
        unknown = f"None of the pods asked about is known: {listed(explanation.unknown)}."
        parts = [unknown, f"Of all pods: {parts[0]}"]
    elif explanation.unknown:
        parts.append(f"Not known for this model: {listed(explanation.unknown)}.")
    total, ranks = explanation.asked.total_blocks, [r for p in explanation.pods for r in p.ranks]
    held = max((rank.facts.match.matched_blocks for rank in ranks), default=0)
    if held < total:
        if explanation.suspects:
            parts.append(explanation.suspects[0].summary)
        elif not held:
            parts.append(_commonest_reason(explanation))
        if not explanation.tries_salts:
            parts.append("Whether another cache salt would match is told at admin.listen only.")
    return " ".join(part for part in parts if part)


def pod_overview(pod: ExplainedPod) -> str:
    """Return why a pod has its score: of its best rank, if it has several."""
    best = pod.ranks[0]
    count = len(pod.ranks) + pod.ranks_left_out
    of = f" Of its {count} ranks, rank {best.facts.worker.rank} holds most." if count > 1 else ""
    return f"{short(pod.pod)}:{of} {best.summary}"


def _holders(explanation: Explanation) -> str:
    asked, best, pods = explanation.asked, explanation.best, explanation.pod_count
    if not pods or best is None:
        return f"No pod has published events of model {short(asked.model)!r} yet."
    if not asked.total_blocks:
        return (
            f"The prompt has {some(len(asked.tokens), 'token')}, and a block {asked.block_size}: "
            "only full blocks can match."
        )
    if not best.matched_blocks:
        return f"None of {some(pods, 'pod')} holds the beginning of this prompt."
    return (
        f"{explanation.holders} of {some(pods, 'pod')} "
        f"{'holds' if explanation.holders == 1 else 'hold'} the beginning of this prompt; "
        f"{short(best.worker.pod)} holds most, {best.matched_blocks} of "
        f"{some(asked.total_blocks, 'block')}."
    )


def _commonest_reason(explanation: Explanation) -> str:
    reasons = Counter(rank.reason for pod in explanation.pods for rank in pod.ranks)
    if not reasons:
        return ""
    reason, count = reasons.most_common(1)[0]
    example = next(r for pod in explanation.pods for r in pod.ranks if r.reason == reason)
    return f"The commonest reason is {reason} ({some(count, 'rank')}): {example.summary}"
