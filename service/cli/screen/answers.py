"""Answers of the service, as tables and text."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

from kvatlas.v1 import fleet_pb2, scoring_pb2, trust_pb2

from service.cli.screen.tables import Part, Table
from service.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvatlas.v1 import explain_pb2, tokenization_pb2


_SCORES = ("POD", "SCORE", "BLOCKS", "TOKENS", "BY TIER", "REUSABLE", "TRUST")


def counts(by_name: Mapping[str, int]) -> str:
    """The numbers with their names, by name."""
    return " ".join(f"{name}={count:,}" for name, count in sorted(by_name.items())) or "-"


def scores(answer: scoring_pb2.ScoreResponse) -> list[Part]:
    """What `kvatlas score` shows: a row for each entry, the best one first."""
    total = f"{answer.total_tokens} tokens, {answer.total_blocks} full blocks"
    parts: list[Part] = [f"{total} of {answer.block_size} tokens"]
    parts += _partial(answer)
    parts.append(_score_table(answer) if answer.pods else "no pod serves this model yet")
    unknown = [*answer.unknown_pods, *(f"{rank.pod}/{rank.rank}" for rank in answer.unknown_ranks)]
    if unknown:
        parts.append(printable("unknown pods: " + ", ".join(unknown)))
    if answer.handle:
        parts.append(f"handle: {b64encode(answer.handle).decode()}")
    return parts


def _score_table(answer: scoring_pb2.ScoreResponse) -> Table:
    has_ranks = any(pod.rank for pod in answer.pods)
    is_speculative = any(pod.speculative_blocks for pod in answer.pods)
    pod, *others = _SCORES
    table = Table(
        pod,
        *(["RANK"] if has_ranks else []),
        *others,
        *(["SPECULATIVE"] if is_speculative else []),
        folded=("BY TIER", "TRUST"),
        trust="TRUST",
    )
    for entry in sorted(answer.pods, key=lambda entry: -entry.score):
        table.add(
            entry.pod,
            *([str(entry.rank)] if has_ranks else []),
            f"{entry.score:.1f}",
            str(entry.matched_blocks),
            str(entry.matched_tokens),
            counts(entry.matched_blocks_by_tier),
            reusable(entry),
            trust(entry.trust_state, entry.trust_reason),
            *([str(entry.speculative_blocks)] if is_speculative else []),
        )
    return table


def _partial(answer: scoring_pb2.ScoreResponse) -> list[Part]:
    if not answer.HasField("partial"):
        return []
    steps = {number: name for name, number in scoring_pb2.PartialAnswer.Step.items()}
    step = steps.get(answer.partial.step, str(answer.partial.step)).removeprefix("STEP_").lower()
    scored = f"{answer.partial.scored_tokens} tokens are scored"
    return [f"partial: the time was over in step {step}, {scored}; pods may hold more"]


def reusable(entry: scoring_pb2.PodScore | explain_pb2.ExplainedRank) -> str:
    """Tokens that the engine would reuse; with a question mark if they may be fewer."""
    return f"{entry.reusable_tokens}{'?' if entry.reusable_is_bound else ''}"


def token_ids(answer: tokenization_pb2.TokenizeResponse) -> list[Part]:
    """The token ids, separated by spaces, after the text of a rendered chat."""
    ids = " ".join(map(str, answer.token_ids))
    return [f"{answer.text}\n\n{ids}" if answer.text else ids]


def pods(answer: fleet_pb2.ListPodsResponse) -> list[Part]:
    """What `kvatlas pods` shows: a row for each rank, and a line for each warning."""
    is_shared = answer.HasField("shared_index")
    has_outcomes = any(rank.HasField("delivered") for pod in answer.pods for rank in pod.ranks)
    table = Table(
        *("POD", "RANK", "MODEL", "TRUST", "BLOCKS", "LAST EVENT", "SEQUENCE", "LOSSES", "SKIPPED"),
        "GROUPS",
        *(["DELIVERED"] if has_outcomes else []),
        *(["OWNER"] if is_shared else []),
        folded=("MODEL", "TRUST", "BLOCKS", "LOSSES", "SKIPPED", "GROUPS"),
        trust="TRUST",
    )
    for pod in answer.pods:
        for rank in pod.ranks:
            delivered = [_delivered(rank)] if has_outcomes else []
            owner = [rank.owner or answer.shared_index.replica] if is_shared else []
            table.add(*_rank(pod, rank), *delivered, *owner)
    if not any(pod.ranks for pod in answer.pods):
        nothing = "no pod is known: no event has arrived yet; see also kvatlas pods discovered"
        return [nothing, *_warnings(answer)]
    warnings = _warnings(answer)
    return [table, *([_shared_index(answer.shared_index)] if is_shared else []), *warnings]


def _warnings(answer: fleet_pb2.ListPodsResponse) -> list[Part]:
    return [
        printable(
            f"warning: {warning.kind}: {warning.model}"
            f"{f' on {warning.pods[0]}' if len(warning.pods) == 1 else ''}: {warning.detail}"
        )
        for warning in answer.warnings
    ]


def change(message: fleet_pb2.WatchPodsResponse) -> str:
    """What has happened to a rank, in one line."""
    state = trust(message.trust_state, message.trust_reason)
    words = {
        fleet_pb2.POD_CHANGE_LISTED: state,
        fleet_pb2.POD_CHANGE_APPEARED: f"has appeared, {state}",
        fleet_pb2.POD_CHANGE_TRUST_CHANGED: f"is now {state}",
        fleet_pb2.POD_CHANGE_RESTARTED: f"has restarted, {state}",
        fleet_pb2.POD_CHANGE_OWNER_CHANGED: f"is now applied by {message.owner or 'this replica'}",
        fleet_pb2.POD_CHANGE_DISAPPEARED: f"has disappeared, was {state}",
    }
    # A newer service may tell of changes that are not known here.
    what = words.get(message.change, f"has changed ({message.change}), {state}")
    left_out = message.skipped_changes
    more = f" ({left_out} changes before this one are left out)" if left_out else ""
    return printable(f"{message.pod} rank {message.rank} {message.model}: {what}{more}")


def _delivered(rank: fleet_pb2.Rank) -> str:
    """The share of the promised tokens that the engine had, and in how many requests."""
    tokens = rank.delivered
    if not tokens.outcomes:
        return "-"
    promised = tokens.promised_tokens
    kept = (promised - tokens.missing_tokens) / promised if promised else 1
    return f"{kept:.0%} of {promised} in {tokens.outcomes}"


def _rank(pod: fleet_pb2.Pod, rank: fleet_pb2.Rank) -> list[str]:
    has_events = rank.HasField("last_event_age_seconds")
    return [
        pod.pod,
        str(rank.rank),
        pod.model,
        trust(rank.trust_state, rank.trust_reason),
        counts(rank.blocks_by_tier),
        f"{rank.last_event_age_seconds:.1f}s ago" if has_events else "never",
        str(rank.last_sequence) if rank.HasField("last_sequence") else "-",
        _losses(rank),
        counts(rank.skipped),
        _groups(rank),
    ]


def _shared_index(shared: fleet_pb2.SharedIndex) -> str:
    live = ", ".join(shared.live_replicas) or "none"
    behind = "keeps no copy of other replicas' blocks"
    if shared.HasField("copy_behind_seconds"):
        behind = f"its copy is at most {shared.copy_behind_seconds:.1f}s old"
    failure = f"; writes to the store fail: {shared.store_failure}" if shared.store_failure else ""
    return printable(
        f"shared index: replica {shared.replica}, {behind}; live replicas: {live}{failure}"
    )


def resync(pod: str, answer: fleet_pb2.ResyncPodResponse) -> list[Part]:
    """What `kvatlas pods resync` has started, a line for each rank."""
    lines = [f"{pod} rank {rank}: its replay socket was asked" for rank in answer.replaying_ranks]
    lines += [
        f"{pod} rank {rank}: no replay socket; it counts as empty until new events arrive"
        for rank in answer.emptied_ranks
    ]
    return ["\n".join(lines)]


def trust(state: trust_pb2.TrustState, reason: str) -> str:
    """The trust state, and the reason for it."""
    names = {number: name for name, number in trust_pb2.TrustState.items()}
    # A newer service may have states that are not known here.
    name = names.get(state, str(state)).removeprefix("TRUST_STATE_").lower()
    return f"{name} ({reason})" if reason else name


def _groups(rank: fleet_pb2.Rank) -> str:
    """Each group's number, kind, window and block size: `0=sliding_window(128)/16`."""
    return " ".join(
        f"{group.group}={group.kind or 'full'}"
        f"{f'({group.window})' if group.window else ''}/{group.block_size}"
        for group in rank.groups
    )


def _losses(rank: fleet_pb2.Rank) -> str:
    """Counts of what went wrong with the rank's frames, without the zeros."""
    by_name = {
        "gaps": rank.gaps,
        "missed": rank.missed_frames,
        "replayed": rank.replayed_frames,
        "failed_replays": rank.replay_failures,
        "duplicates": rank.duplicate_frames,
        "late": rank.late_frames,
        "restarts": rank.restarts,
        "overflows": rank.overflows,
        "orphans": rank.orphan_blocks,
        "rivals": rank.rival_frames,
    }
    return counts({name: count for name, count in by_name.items() if count})
