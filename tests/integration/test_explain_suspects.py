"""ExplainService finds the usual suspects: a publisher with exactly that misconfiguration."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest
from support.services.explained import explain, suspects_of
from support.services.one_pod import (
    MODEL,
    POD,
    TOKENS,
    Pods,
    block_stored,
    score_request,
    service_with_pod,
)

if TYPE_CHECKING:
    from support.engines.publisher import Publisher
    from support.services.running import RunningService

SALTED = [["tenant"], None, None, None]
IMAGE = "cafe"
IN_BLOCK_1 = [None, [[IMAGE, 4]], None, None]
TYPED: dict[str, Any] = {
    "kv_cache_spec_kind": "full_attention",
    "group_idx": 0,
}  # of vLLM 0.20: pairs for images


@pytest.fixture
def pods(service: RunningService, pod: Publisher) -> Pods:
    return Pods(service, pod)


SUSPECTS: list[tuple[str, dict[str, Any], dict[str, Any], list[int], int]] = [
    # kind, fields of the event, fields of the request, tokens of the request, blocks to be found
    ("other_adapter", {"lora_name": "sql"}, {}, TOKENS, 4),
    ("other_adapter", {"lora_name": "sql"}, {"lora_name": "sq"}, TOKENS, 4),
    ("without_adapter", {}, {"lora_name": "sql"}, TOKENS, 4),
    ("other_salt", {"extra_keys": SALTED}, {}, TOKENS, 4),
    ("other_salt", {"extra_keys": SALTED}, {"cache_salt": "another"}, TOKENS, 4),
    ("without_salt", {}, {"cache_salt": "tenant"}, TOKENS, 4),
    ("first_token_extra", {}, {}, [1, *TOKENS], 4),
    ("first_token_missing", {}, {}, TOKENS[1:], 4),
]


@pytest.mark.parametrize(("kind", "stored", "asked", "tokens", "blocks"), SUSPECTS)
async def test_a_prompt_that_is_held_in_another_form_has_a_suspect(
    pods: Pods,
    kind: str,
    stored: dict[str, Any],
    asked: dict[str, Any],
    tokens: list[int],
    blocks: int,
) -> None:
    await pods.publish(block_stored(TOKENS, **stored))
    answer = await explain(pods.service.channel, score_request(tokens, **asked))
    assert answer.pods[0].ranks[0].matched_blocks == 0
    assert {suspect.kind for suspect in answer.suspects} == {kind}
    suspect = suspects_of(answer)[kind]
    assert (list(suspect.pods), suspect.pod_count) == ([POD], 1)
    assert (suspect.blocks, suspect.tokens) == (blocks, 16 * blocks)
    assert suspect.model == MODEL
    assert suspect.lora_name == (stored.get("lora_name", "") if "adapter" in kind else "")
    assert suspect.summary in answer.summary


async def test_the_extra_and_the_missing_token_are_named(pods: Pods) -> None:
    await pods.publish(block_stored(TOKENS))
    for tokens, kind, token in (
        ([5, *TOKENS], "first_token_extra", 5),
        (TOKENS[1:], "first_token_missing", TOKENS[0]),
    ):
        answer = await explain(pods.service.channel, score_request(tokens))
        assert suspects_of(answer)[kind].token_id == token


async def test_salts_of_others_are_tried_only_where_strangers_are_kept_out() -> None:
    async with service_with_pod(grpc={"listen": ["0.0.0.0:0"]}) as (service, publisher):
        await Pods(service, publisher).publish(block_stored(TOKENS, extra_keys=SALTED))
        by_stranger = await explain(service.channel, score_request(TOKENS))
        by_operator = await explain(service.admin, score_request(TOKENS))
        assert not by_stranger.suspects
        assert "admin.listen" in by_stranger.summary
        assert set(suspects_of(by_operator)) == {"other_salt"}


async def test_ids_in_the_wrong_byte_order_are_a_suspect(pods: Pods) -> None:
    await pods.publish(block_stored(TOKENS))
    request = score_request([])
    request.prompt.packed_token_ids = struct.pack(f">{len(TOKENS)}I", *TOKENS)
    assert suspects_of(await explain(pods.service.channel, request))["byte_swapped_ids"].blocks == 4


async def test_a_prompt_held_under_another_model_s_name_is_a_suspect(pods: Pods) -> None:
    await pods.publish(block_stored([7] * 16))
    await pods.publish(block_stored(TOKENS), pod="10.0.0.2:8000", model="org/model")
    answer = await explain(pods.service.channel, score_request(TOKENS))
    suspect = suspects_of(answer)["other_model"]
    assert (suspect.model, list(suspect.pods), suspect.blocks) == (
        *("org/model", ["10.0.0.2:8000"], 4),
    )


async def test_a_prompt_held_without_its_images_is_a_suspect(pods: Pods) -> None:
    await pods.publish(block_stored(TOKENS))
    answer = await explain(pods.service.channel, score_request(TOKENS, (IMAGE, 20, 8)))
    assert answer.pods[0].ranks[0].matched_blocks == 1
    assert suspects_of(answer)["without_items"].blocks == 4


async def test_a_prompt_held_with_other_images_is_a_suspect(pods: Pods) -> None:
    await pods.publish(block_stored(TOKENS, extra_keys=IN_BLOCK_1, **TYPED))
    for images in ([], [("beef", 20, 8)]):
        answer = await explain(pods.service.channel, score_request(TOKENS, *images))
        assert answer.pods[0].ranks[0].matched_blocks == 1
        assert list(suspects_of(answer)["other_items"].pods) == [POD]
    right = await explain(pods.service.channel, score_request(TOKENS, (IMAGE, 20, 8)))
    assert (right.pods[0].ranks[0].reason, list(right.suspects)) == ("whole_prompt", [])


async def test_blocks_that_make_no_whole_block_of_the_answer_are_a_suspect() -> None:
    async with service_with_pod(index={"block_size": 64}) as (service, publisher):
        await Pods(service, publisher).publish(block_stored(TOKENS[:48]))
        answer = await explain(service.channel, score_request(TOKENS))
        rank = answer.pods[0].ranks[0]
        assert (rank.matched_blocks, rank.reason, rank.first_missing.index) == (
            *(0, "part_of_block", 3),
        )
        suspect = suspects_of(answer)["other_block_size"]
        assert (suspect.tokens, list(suspect.pods)) == (48, [POD])


async def test_a_prompt_that_is_held_as_it_is_has_no_suspects(pods: Pods) -> None:
    await pods.publish(block_stored(TOKENS))
    await pods.publish(block_stored(list(range(5000, 5064)), first_hash=50, lora_name="sql"))
    answer = await explain(pods.service.channel, score_request(TOKENS))
    assert not answer.suspects


async def test_a_prompt_that_nobody_holds_in_any_form_has_no_suspects(pods: Pods) -> None:
    await pods.publish(
        block_stored(TOKENS, extra_keys=SALTED), block_stored(TOKENS, lora_name="sql")
    )
    answer = await explain(pods.service.channel, score_request([9] * 64))
    assert not answer.suspects
    assert "None of 1 pod holds the beginning of this prompt" in answer.summary


async def test_of_several_forms_the_one_that_matches_most_comes_first(pods: Pods) -> None:
    await pods.publish(
        block_stored(TOKENS[:32], lora_name="a"),
        block_stored(TOKENS, first_hash=50, lora_name="b"),
        block_stored(TOKENS[:48], first_hash=90, extra_keys=SALTED[:3]),
    )
    answer = await explain(pods.service.channel, score_request(TOKENS))
    assert [(s.kind, s.lora_name, s.blocks) for s in answer.suspects] == [
        ("other_adapter", "b", 4),
        ("other_salt", "", 3),
        ("other_adapter", "a", 2),
    ]
