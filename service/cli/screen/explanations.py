"""What `kvatlas explain` shows: the conclusions first, then what they rest on."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from service.cli.screen.answers import counts, reusable, trust
from service.cli.screen.tables import Heading, Part, Table, width
from service.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvatlas.v1 import explain_pb2

_TEXT = 400
"""Characters of the prompt's text that are shown."""
_IDS = 16
"""Token ids that are shown."""


def explanation(answer: explain_pb2.ExplainResponse) -> list[Part]:
    """The whole answer."""
    return [
        _words(answer.summary),
        *_section("What does not fit", _suspects(answer)),
        *_section("Pods", _pods(answer)),
        *_section("The prompt", _prompt(answer.prompt)),
        *_section("Steps", _steps(answer)),
    ]


def _section(title: str, parts: Iterator[Part]) -> Iterator[Part]:
    found = list(parts)
    if found:
        yield from ("", Heading(title), *found)


def _suspects(answer: explain_pb2.ExplainResponse) -> Iterator[Part]:
    for suspect in answer.suspects:
        pods = f" ({_some(suspect.pods, suspect.pod_count)})" if suspect.pod_count > 1 else ""
        yield _item(f"{suspect.kind}: {suspect.summary}{pods}")
    for unknown in answer.unknown_pods:
        yield _item(f"unknown pod {unknown.pod}: {unknown.summary}")
    for field in answer.unused_fields:
        yield _item(f"{field.field} had no effect: {field.reason}")
    for warning in answer.warnings:
        yield _item(f"{warning.kind}: {warning.model}: {warning.detail}")


def _pods(answer: explain_pb2.ExplainResponse) -> Iterator[Part]:
    if not answer.pods:
        return
    table = Table(
        *("POD", "RANK", "SCORE", "BLOCKS", "BY TIER", "REUSABLE", "ENDS", "TRUST"),
        folded=("BY TIER", "TRUST"),
        trust="TRUST",
    )
    for pod in answer.pods:
        for rank in pod.ranks:
            table.add(
                pod.pod,
                str(rank.rank),
                f"{rank.score:.1f}",
                str(rank.matched_blocks),
                counts(rank.matched_blocks_by_tier),
                reusable(rank),
                rank.reason,
                trust(rank.trust_state, rank.trust_reason),
            )
    yield table
    for pod in answer.pods:
        yield from ("", _words(pod.summary or pod.pod))
        for rank in pod.ranks:
            yield from _rank(rank, is_told=rank.summary in pod.summary)
        if pod.ranks_left_out:
            yield f"  {pod.ranks_left_out} more ranks are not shown"
    if answer.pods_left_out:
        yield f"{answer.pods_left_out} more pods are not shown"


def _rank(rank: explain_pb2.ExplainedRank, *, is_told: bool) -> Iterator[Part]:
    """The numbers behind a rank's summary, which its pod's may contain."""
    if not is_told:
        yield _item(f"rank {rank.rank}: {rank.summary}")
    if rank.HasField("first_missing"):
        yield from _missing(rank)
    for limit in rank.reuse_limits:
        yield _item(f"reuses less ({limit.reason}): {limit.summary}", 4)
    if rank.speculative_blocks:
        yield _item(f"{rank.speculative_blocks} blocks are only expected here (speculative)", 4)
    if len(rank.groups) > 1:
        for match in rank.groups:
            group = match.group
            kind = f"{group.kind or 'full'}{', must hold every block' if match.is_main else ''}"
            yield _item(
                f"group {group.group} ({kind}): {match.leading_blocks} leading blocks, "
                f"{match.held_blocks} in all",
                4,
            )
    if rank.skipped:
        yield _item(f"skipped: {counts(rank.skipped)}", 4)
    if rank.owner:
        yield _item(f"its events are applied by replica {rank.owner}", 4)


def _missing(rank: explain_pb2.ExplainedRank) -> Iterator[Part]:
    missing = rank.first_missing
    beyond = ""
    if rank.held_after_missing:
        beyond = f"; {rank.held_after_missing} blocks after it are held, and do not count"
    yield _item(
        f"first missing: block {missing.index}, tokens {missing.first_token} to "
        f"{missing.end_token - 1}, key {missing.key}{beyond}",
        4,
    )
    if missing.next_best:
        others = [f"{o.pod} rank {o.rank} ({o.matched_blocks} blocks)" for o in missing.next_best]
        yield _item(f"held beyond that by {', '.join(others)}", 4)
    for event in missing.events:
        where = f" {event.tier} group {event.group}" if event.tier else ""
        sequence = f", frame {event.sequence}" if event.HasField("sequence") else ""
        yield _item(f"{event.age_seconds:.1f}s ago: {event.type}{where}{sequence}", 4)


def _prompt(prompt: explain_pb2.ExplainedPrompt) -> Iterator[Part]:
    yield _words(
        prompt.summary
        or f"{prompt.input}: {prompt.total_tokens} tokens, {prompt.total_blocks} full blocks of "
        f"{prompt.block_size}, {prompt.tail_tokens} tokens after them"
    )
    if prompt.tokenizer:
        template = f", template {prompt.template}" if prompt.template else ""
        yield _item(f"tokenizer {prompt.tokenizer} ({prompt.encoder}){template}")
    if prompt.added_token_ids:
        yield _item(f"the tokenizer put {_ids(prompt.added_token_ids)} before the text")
    if prompt.lora_name or prompt.salt_source:
        names = [f"adapter {prompt.lora_name}"] if prompt.lora_name else []
        names += [f"a cache salt from {prompt.salt_source}"] if prompt.salt_source else []
        yield _item(f"in its keys: {', '.join(names)}")
    for item in prompt.items:
        yield _item(
            f"image {item.hash}: tokens {item.offset} to {item.offset + item.length - 1}, "
            f"blocks {item.first_block} to {item.end_block - 1}"
        )
    yield _item(f"first token ids: {_ids(prompt.first_token_ids)}")
    if prompt.text:
        text = prompt.text[:_TEXT]
        more = f" ... ({prompt.text_characters} characters)" if len(text) < len(prompt.text) else ""
        yield _item(f"text: {text!r}{more}")


def _steps(answer: explain_pb2.ExplainResponse) -> Iterator[Part]:
    if answer.steps:
        steps = (f"{step.step} {step.microseconds / 1000:.2f} ms" for step in answer.steps)
        yield _item(", ".join(steps))
    if answer.HasField("copy_behind_seconds"):
        yield _item(f"the copy of the index is at most {answer.copy_behind_seconds:.1f}s old")
    if answer.is_cut:
        yield _item("some texts or lists were cut: the answer would have been too large")


def _words(text: str) -> str:
    return _item(text, 0)


def _item(text: str, indent: int = 2) -> str:
    """One paragraph, in lines as wide as the terminal, with all but the first indented further."""
    return textwrap.fill(
        printable(text),
        width(),
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 2 if indent else 0),
        break_on_hyphens=False,
    )


def _some(names: Sequence[str], total: int) -> str:
    more = f" and {total - len(names)} more" if total > len(names) else ""
    return f"{', '.join(names)}{more}"


def _ids(ids: Sequence[int]) -> str:
    return " ".join(map(str, ids[:_IDS])) + (" ..." if len(ids) > _IDS else "")
