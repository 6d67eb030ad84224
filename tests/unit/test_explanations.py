"""An explanation on the screen: conclusions first, nothing left out, nothing obeyed."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from kvatlas.v1 import explain_pb2, fleet_pb2, trust_pb2

from service.cli.screen.answers import change
from service.cli.screen.explanations import explanation
from service.cli.screen.tables import as_text

HOSTILE = "\x1b[2J[bold]\u202e\nx"

ANSWER = explain_pb2.ExplainResponse(
    summary="No pod holds the prompt. Two hold it for the adapter 'sql'.",
    prompt=explain_pb2.ExplainedPrompt(
        input="chat_completion",
        text="<s>user: hello",
        text_characters=14,
        total_tokens=70,
        first_token_ids=range(40),
        tail_tokens=6,
        total_blocks=4,
        block_size=16,
        added_token_ids=[1],
        encoder="fastokens",
        tokenizer="/models/m",
        template="default",
        salt_source="cache_salt",
        lora_name="chat",
        items=[explain_pb2.ExplainedItem(hash="9f", offset=3, length=40, end_block=3)],
        summary="A chat of 70 tokens.",
    ),
    pods=[
        explain_pb2.ExplainedPod(
            pod="10.0.0.1:8000",
            summary="It holds two of four blocks.",
            ranks=[
                explain_pb2.ExplainedRank(
                    rank=1,
                    reason="removed",
                    summary="The engine removed block 2.",
                    score=1.8,
                    matched_blocks=2,
                    matched_blocks_by_tier={"gpu": 1, "cpu": 2},
                    reusable_tokens=32,
                    reusable_is_bound=True,
                    trust_state=trust_pb2.TRUST_STATE_PARTIAL,
                    trust_reason="joined_late",
                    first_missing=explain_pb2.MissingBlock(
                        index=2,
                        first_token=32,
                        end_token=48,
                        key=12345678901234567890,
                        next_best=[explain_pb2.OtherHolder(pod="b:1", matched_blocks=4)],
                        events=[
                            explain_pb2.BlockEvent(
                                type="BlockRemoved", tier="gpu", sequence=7, age_seconds=4.2
                            )
                        ],
                    ),
                    held_after_missing=3,
                    reuse_limits=[
                        explain_pb2.ReuseLimit(reason="last_token", summary="The last one.")
                    ],
                    skipped={"unknown_parent": 3},
                    owner="replica-b",
                )
            ],
        )
    ],
    pods_left_out=5,
    suspects=[
        explain_pb2.Suspect(
            kind="other_adapter",
            summary="They hold it for 'sql': send lora_name.",
            pods=["c:1", "d:1"],
            pod_count=9,
            blocks=4,
        )
    ],
    unknown_pods=[explain_pb2.UnknownPod(pod="e", summary="Did you mean e:8000?")],
    unused_fields=[explain_pb2.UnusedField(field="temperature", reason="It changes no token.")],
    warnings=[fleet_pb2.FleetWarning(kind="block_sizes_differ", model="m", detail="16 and 32")],
    steps=[explain_pb2.Step(step="match", microseconds=1500)],
)


def hostile(message: Any) -> None:
    """Put control characters and markup into every text of a message, once in each list."""
    for field in message.DESCRIPTOR.fields:
        is_repeated = field.is_repeated
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if is_map:
            if field.message_type.fields_by_name["key"].type == FieldDescriptor.TYPE_STRING:
                getattr(message, field.name)[HOSTILE] = 1
        elif field.message_type is not None:
            inner = getattr(message, field.name)
            for each in (inner.add(),) if is_repeated else (inner,):
                hostile(each)
                each.SetInParent()
        elif field.type == FieldDescriptor.TYPE_STRING:
            if is_repeated:
                getattr(message, field.name).append(HOSTILE)
            else:
                setattr(message, field.name, HOSTILE)


def test_an_explanation_shows_the_conclusion_first_and_then_what_it_rests_on() -> None:
    text = as_text(*explanation(ANSWER))
    lines = text.splitlines()
    assert lines[0] == ANSWER.summary
    for words in (
        "other_adapter: They hold it for 'sql': send lora_name. (c:1, d:1 and 7 more)",
        "unknown pod e: Did you mean e:8000?",
        "temperature had no effect: It changes no token.",
        "block_sizes_differ: m: 16 and 32",
        "It holds two of four blocks.",
        "rank 1: The engine removed block 2.",
        "first missing: block 2, tokens 32 to 47, key 12345678901234567890; 3 blocks after it",
        "held beyond that by b:1 rank 0 (4 blocks)",
        "4.2s ago: BlockRemoved gpu group 0, frame 7",
        "reuses less (last_token): The last one.",
        "skipped: unknown_parent=3",
        "replica replica-b",
        "5 more pods are not shown",
        "A chat of 70 tokens.",
        "tokenizer /models/m (fastokens), template default",
        "adapter chat, a cache salt from cache_salt",
        "image 9f: tokens 3 to 42, blocks 0 to 2",
        "text: '<s>user: hello'",
        "match 1.50 ms",
    ):
        assert words in text
    row = (
        r"10\.0\.0\.1:8000\s+1\s+1\.8\s+2\s+cpu=2 gpu=1\s+32\?\s+removed\s+partial \(joined_late\)"
    )
    assert re.search(row, text)
    order = [text.index(title) for title in ("What does not fit", "Pods", "The prompt", "Steps")]
    assert order == sorted(order)
    assert max(map(len, lines)) <= 110


def test_an_explanation_obeys_nothing_that_others_have_named() -> None:
    message = explain_pb2.ExplainResponse()
    hostile(message)
    text = as_text(*explanation(message))
    assert "\\x1b[2J[bold]" in text
    assert all(c.isprintable() or c == "\n" for c in text)


def test_an_empty_explanation_can_be_shown() -> None:
    assert "0 tokens" in as_text(*explanation(explain_pb2.ExplainResponse()))


def test_each_change_of_a_rank_is_one_line() -> None:
    numbers: list[Any] = [*fleet_pb2.PodChange.values(), 99]
    for number in numbers:
        message = fleet_pb2.WatchPodsResponse()
        hostile(message)
        message.change, message.skipped_changes = number, 3
        line = change(message)
        assert line.isprintable()
        assert "3 changes before this one are left out" in line
