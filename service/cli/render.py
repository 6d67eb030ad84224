"""Renders answers as tables and text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvatlas.v1 import trust_pb2

from service.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kvatlas.v1 import fleet_pb2, scoring_pb2, tokenization_pb2


_SCORES = ("POD", "SCORE", "BLOCKS", "TOKENS", "BY TIER", "REUSABLE", "TRUST")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with columns as wide as needed, numbers aligned right, words left."""
    rows = [[printable(cell) for cell in row] for row in rows]
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numeric = [all(_is_number(cell) for cell in column[1:]) for column in columns]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in (header, *rows)
    ]
    return "\n".join(lines)


def _is_number(cell: str) -> bool:
    return cell.replace(".", "", 1).replace(",", "").isdigit() or cell == "-"


def _counts(counts: Mapping[str, int]) -> str:
    return " ".join(f"{name}={count:,}" for name, count in sorted(counts.items())) or "-"


def scores(answer: scoring_pb2.ScoreResponse) -> str:
    """The table of `kvatlas score`, the best pod first."""
    rows = [
        [
            pod.pod,
            f"{pod.score:.1f}",
            str(pod.matched_blocks),
            str(pod.matched_tokens),
            _counts(pod.matched_blocks_by_tier),
            f"{pod.reusable_tokens}{'?' if pod.reusable_is_bound else ''}",
            _trust(pod.trust_state, pod.trust_reason),
        ]
        for pod in sorted(answer.pods, key=lambda pod: -pod.score)
    ]
    total = f"{answer.total_tokens} tokens, {answer.total_blocks} full blocks"
    lines = [f"{total} of {answer.block_size} tokens"]
    if rows:
        lines.append(table(_SCORES, rows))
    else:
        lines.append("no pod serves this model yet")
    if answer.unknown_pods:
        lines.append("unknown pods: " + printable(", ".join(answer.unknown_pods)))
    return "\n".join(lines)


def token_ids(answer: tokenization_pb2.TokenizeResponse) -> str:
    """The token ids, separated by spaces, after the text of a rendered chat."""
    ids = " ".join(map(str, answer.token_ids))
    return f"{answer.text}\n\n{ids}" if answer.text else ids


def pods(answer: fleet_pb2.ListPodsResponse) -> str:
    """The table of `kvatlas pods`: a line for each rank, and one for each warning."""
    rows = []
    is_shared = answer.HasField("shared_index")
    for pod in answer.pods:
        for rank in pod.ranks:
            has_events = rank.HasField("last_event_age_seconds")
            rows.append(
                [
                    pod.pod,
                    str(rank.rank),
                    pod.model,
                    _trust(rank.trust_state, rank.trust_reason),
                    _counts(rank.blocks_by_tier),
                    f"{rank.last_event_age_seconds:.1f}s ago" if has_events else "never",
                    str(rank.last_sequence) if rank.HasField("last_sequence") else "-",
                    _losses(rank),
                    _counts(rank.skipped),
                    _groups(rank),
                    *([rank.owner or answer.shared_index.replica] if is_shared else []),
                ]
            )
    if not rows:
        return "no pod is known: none is configured, and no event has arrived yet"
    header = [
        *("POD", "RANK", "MODEL", "TRUST", "BLOCKS", "LAST EVENT", "SEQUENCE", "LOSSES", "SKIPPED"),
        "GROUPS",
        *(["OWNER"] if is_shared else []),
    ]
    warnings = [
        printable(f"warning: {warning.kind}: {warning.model}: {warning.detail}")
        for warning in answer.warnings
    ]
    shared = [_shared_index(answer.shared_index)] if is_shared else []
    return "\n".join([table(header, rows), *shared, *warnings])


def _shared_index(shared: fleet_pb2.SharedIndex) -> str:
    live = ", ".join(shared.live_replicas) or "none"
    behind = "keeps no copy of other replicas' blocks"
    if shared.HasField("copy_behind_seconds"):
        behind = f"its copy is at most {shared.copy_behind_seconds:.1f}s old"
    failure = f"; writes to the store fail: {shared.store_failure}" if shared.store_failure else ""
    return printable(
        f"shared index: replica {shared.replica}, {behind}; live replicas: {live}{failure}"
    )


def resync(pod: str, answer: fleet_pb2.ResyncPodResponse) -> str:
    """What `kvatlas pods resync` has started, a line for each rank."""
    lines = [f"{pod} rank {rank}: its replay socket was asked" for rank in answer.replaying_ranks]
    lines += [
        f"{pod} rank {rank}: no replay socket; it counts as empty until new events arrive"
        for rank in answer.emptied_ranks
    ]
    return "\n".join(lines)


def _trust(state: trust_pb2.TrustState, reason: str) -> str:
    name = trust_pb2.TrustState.Name(state).removeprefix("TRUST_STATE_").lower()
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
    counts = {
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
    return _counts({name: count for name, count in counts.items() if count})
