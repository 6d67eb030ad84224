"""ExplainService: where the prefix of each rank ends, and why."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from kvatlas.v1 import routing_pb2, routing_pb2_grpc
from kvatlas.v1.trust_pb2 import TRUST_STATE_EXACT, TRUST_STATE_UNKNOWN
from support.refusals import refusal
from support.services.explained import explain, look_up, rank_of
from support.services.one_pod import (
    MODEL,
    POD,
    TOKENS,
    Pods,
    block_stored,
    frame,
    score,
    score_request,
    service_with_pod,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OTHER = "10.0.0.2:8000"


def removed(*hashes: int, **fields: Any) -> dict[str, Any]:
    """The event that removes blocks."""
    return {"type": "BlockRemoved", "block_hashes": list(hashes), "medium": "GPU", **fields}


@pytest.fixture(params=["http2", "grpcio"])
async def pods(request: pytest.FixtureRequest) -> AsyncIterator[Pods]:
    section = {"listen": ["127.0.0.1:0"], "transport": request.param, "drain_seconds": 0.1}
    async with service_with_pod(grpc=section) as (service, publisher):
        yield Pods(service, publisher)


# Where the prefix ends


async def test_a_pod_that_holds_the_whole_prompt_is_said_to(pods: Pods) -> None:
    await pods.publish(block_stored(TOKENS))
    answer = await explain(pods.service.channel, score_request([*TOKENS, 7, 8]))
    rank = rank_of(answer, POD)
    assert (rank.reason, rank.matched_blocks, rank.reusable_tokens) == ("whole_prompt", 4, 64)
    assert not rank.HasField("first_missing")
    assert rank.trust_state == TRUST_STATE_EXACT
    assert "4 of 4 blocks" in answer.summary
    assert answer.pods[0].summary.startswith(POD)


async def test_a_block_that_the_engine_removed_is_named_with_the_events_that_touched_it(
    pods: Pods,
) -> None:
    await pods.publish(block_stored(TOKENS))
    await pods.publish(removed(3))
    rank = rank_of(await explain(pods.service.channel, score_request(TOKENS)), POD)
    missing = rank.first_missing
    assert (rank.reason, missing.index, missing.first_token, missing.end_token) == (
        *("removed", 2, 32, 48),
    )
    assert [(e.type, e.sequence, e.engine_hash, e.tier) for e in missing.events] == [
        ("BlockRemoved", 1, 3, "gpu"),
        ("BlockStored", 0, 3, "gpu"),
    ]
    assert rank.held_after_missing == 1
    assert "Block 2 (tokens 32 to 47) was removed from gpu" in rank.summary
    assert "(frame 1)" in rank.summary


async def test_a_block_that_was_cleared_with_all_others_is_said_to(pods: Pods) -> None:
    await pods.publish(block_stored(TOKENS))
    await pods.publish({"type": "AllBlocksCleared"})
    rank = rank_of(await explain(pods.service.channel, score_request(TOKENS)), POD)
    assert (rank.reason, rank.first_missing.index) == ("cleared", 0)


async def test_a_block_of_which_no_event_is_known_is_never_stored(pods: Pods) -> None:
    await pods.publish(block_stored(TOKENS[:32]))
    rank = rank_of(await explain(pods.service.channel, score_request(TOKENS)), POD)
    assert (rank.reason, rank.first_missing.index) == ("never_stored", 2)
    assert rank.first_missing.events_searched == 1
    assert not rank.first_missing.events


async def test_a_block_whose_parent_is_unknown_is_waiting(pods: Pods) -> None:
    await pods.publish(block_stored(TOKENS[:32]))
    await pods.publish(block_stored(TOKENS[32:], first_hash=50, parent_block_hash=49))
    rank = rank_of(await explain(pods.service.channel, score_request(TOKENS)), POD)
    assert (rank.reason, rank.first_missing.index) == ("waiting", 2)


async def test_a_pod_whose_blocks_have_all_gone_holds_nothing(pods: Pods) -> None:
    other = list(range(5000, 5016))
    await pods.publish(block_stored(other))
    await pods.publish(removed(1))
    rank = rank_of(await explain(pods.service.channel, score_request(TOKENS)), POD)
    assert rank.reason == "holds_nothing"


async def test_a_pod_of_which_no_event_came_is_never_heard() -> None:
    source = {"endpoint": "tcp://127.0.0.1:1", "pod": "10.0.0.9:8000", "model": MODEL}
    async with service_with_pod(
        sources=[{"endpoint": "tcp://127.0.0.1:0", "bind": True}, source]
    ) as (service, _):
        answer = await explain(service.channel, score_request(TOKENS))
        rank = rank_of(answer, "10.0.0.9:8000")
        assert (rank.reason, rank.trust_state) == ("never_heard", TRUST_STATE_UNKNOWN)
        assert "never_heard" in answer.summary


async def test_a_prompt_shorter_than_a_block_is_said_to_be(pods: Pods) -> None:
    await pods.publish(block_stored(TOKENS))
    answer = await explain(pods.service.channel, score_request(TOKENS[:15]))
    assert rank_of(answer, POD).reason == "no_full_block"
    assert "15 tokens" in answer.summary
    assert list(answer.prompt.tail_token_ids) == TOKENS[:15]


@pytest.mark.parametrize("tokens", [16, 40])
async def test_a_prompt_shorter_than_an_answer_s_block_is_said_to_be_short(tokens: int) -> None:
    async with service_with_pod(index={"block_size": 64}) as (service, publisher):
        await Pods(service, publisher).publish(block_stored(TOKENS[:48]))
        answer = await explain(service.channel, score_request(TOKENS[:tokens]))
        assert rank_of(answer, POD).reason == "no_full_block"


async def test_a_score_of_zero_for_a_tier_without_weight_is_explained(pods: Pods) -> None:
    await pods.publish(block_stored(TOKENS, medium="tape"))
    rank = rank_of(await explain(pods.service.channel, score_request(TOKENS)), POD)
    assert (rank.score, rank.matched_blocks, rank.reason) == (0.0, 4, "whole_prompt")
    assert "tape has no weight" in rank.summary


async def test_a_block_that_one_group_lacks_is_not_in_all_groups(pods: Pods) -> None:
    kinds = ("full_attention", "mla_attention")
    await pods.publish(
        *(
            block_stored(TOKENS[: 64 - 32 * number], group_idx=number, kv_cache_spec_kind=kind)
            for number, kind in enumerate(kinds)
        )
    )
    rank = rank_of(await explain(pods.service.channel, score_request(TOKENS)), POD)
    assert (rank.reason, rank.first_missing.index, rank.matched_blocks) == (
        *("not_in_all_groups", 2, 2),
    )
    assert [(g.group.kind, g.is_main, g.leading_blocks) for g in rank.groups] == [
        ("full_attention", True, 4),
        ("mla_attention", True, 2),
    ]


async def test_the_reasons_for_reusing_less_than_is_matched_are_named(pods: Pods) -> None:
    await pods.publish(
        block_stored(TOKENS, group_idx=0, kv_cache_spec_kind="full_attention"),
        block_stored(
            TOKENS[:16],
            group_idx=1,
            kv_cache_spec_kind="sliding_window",
            kv_cache_spec_sliding_window=32,
        ),
    )
    rank = rank_of(await explain(pods.service.channel, score_request(TOKENS)), POD)
    assert (rank.matched_tokens, rank.reusable_tokens) == (64, 16)
    assert [limit.reason for limit in rank.reuse_limits] == ["last_token", "groups"]


async def test_a_prompt_that_ends_within_an_engine_block_is_a_part_of_one() -> None:
    async with service_with_pod() as (service, publisher):
        event = {**block_stored(TOKENS), "block_hashes": [1], "block_size": 64}
        publisher.send(frame(0, event))
        await service.until_applied({(POD, 0): 0})
        rank = rank_of(await explain(service.channel, score_request(TOKENS[:48])), POD)
        assert (rank.reason, rank.matched_blocks) == ("part_of_engine_block", 0)
        assert "64 tokens" in rank.summary


async def test_the_best_other_holders_of_a_missing_block_are_named(pods: Pods) -> None:
    await pods.publish(block_stored(TOKENS[:16]))
    await pods.publish(block_stored(TOKENS), pod=OTHER)
    rank = rank_of(await explain(pods.service.channel, score_request(TOKENS)), POD)
    (best,) = rank.first_missing.next_best
    assert (best.pod, best.matched_blocks, best.matched_tokens) == (OTHER, 4, 64)


async def test_blocks_that_are_about_to_come_are_speculative(pods: Pods) -> None:
    await pods.publish(block_stored(TOKENS[:16]))
    request = score_request(TOKENS)
    handle = (await score(pods.service, score_request(TOKENS, want_handle=True))).handle
    await routing_pb2_grpc.RoutingServiceStub(pods.service.channel).RecordRouting(
        routing_pb2.RecordRoutingRequest(handle=handle, pod=POD)
    )
    rank = rank_of(await explain(pods.service.channel, request), POD)
    assert (rank.matched_blocks, rank.speculative_blocks) == (1, 3)
    assert "about to hold 3 further blocks" in rank.summary


# The request


async def test_a_pod_named_without_its_port_is_unknown_and_the_name_with_it_is_similar(
    pods: Pods,
) -> None:
    await pods.publish(block_stored(TOKENS))
    await pods.publish(block_stored(TOKENS), pod="10.0.0.3:8000", model="another")
    names = ["10.0.0.1", "10.0.0.3:8000", "nobody"]
    answer = await explain(pods.service.channel, score_request(TOKENS, pods=names))
    assert not answer.pods
    assert [(u.pod, list(u.similar), u.serves_model) for u in answer.unknown_pods] == [
        ("10.0.0.1", [POD], ""),
        ("10.0.0.3:8000", [], "another"),
        ("nobody", [], ""),
    ]
    assert answer.summary.startswith("None of the pods asked about is known: 10.0.0.1, ")


async def test_only_the_requested_pods_are_explained(pods: Pods) -> None:
    await pods.publish(block_stored(TOKENS))
    await pods.publish(block_stored(TOKENS), pod=OTHER)
    answer = await explain(pods.service.channel, score_request(TOKENS, pods=[OTHER]))
    assert [pod.pod for pod in answer.pods] == [OTHER]


async def test_fields_without_effect_are_named(pods: Pods) -> None:
    await pods.publish(block_stored(TOKENS))
    request = score_request(
        [*TOKENS, 7, 8, 9],
        ("image", 65, 2),
        pods=[POD, POD],
        only_holders=True,
        max_pods=3,
        lora_name=MODEL,
    )
    answer = await explain(pods.service.channel, request)
    assert {unused.field for unused in answer.unused_fields} == {
        "only_holders",
        "max_pods",
        f"pods[{POD}]",
        "lora_name",
        "prompt.multimodal_items[image]",
    }


async def test_what_became_of_token_ids_is_shown(pods: Pods) -> None:
    await pods.publish(block_stored(TOKENS))
    request = score_request([*TOKENS, 7], ("image", 20, 20), cache_salt="secret", lora_name="sql")
    prompt = (await explain(pods.service.channel, request)).prompt
    assert (prompt.input, prompt.total_tokens, prompt.total_blocks, prompt.block_size) == (
        *("token_ids", 65, 4, 16),
    )
    assert list(prompt.first_token_ids) == TOKENS
    assert list(prompt.tail_token_ids) == [7]
    assert [(i.hash, i.first_block, i.end_block) for i in prompt.items] == [("image", 1, 3)]
    assert (prompt.salt_source, prompt.lora_name, len(prompt.first_keys)) == (
        *("cache_salt", "sql", 4),
    )


async def test_a_salt_is_never_in_an_answer(pods: Pods) -> None:
    await pods.publish(block_stored(TOKENS, extra_keys=[["tenant-secret"], None, None, None]))
    request = score_request(TOKENS, cache_salt="caller-secret")
    answer = (await explain(pods.service.channel, request)).SerializeToString()
    assert b"secret" not in answer


async def test_an_unknown_model_is_refused_as_by_score(pods: Pods) -> None:
    await pods.publish(block_stored(TOKENS))
    found = await refusal(explain(pods.service.channel, score_request(TOKENS, model="unknown")))
    assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_UNKNOWN")


# The service


async def test_an_explanation_counts_as_no_score_and_changes_nothing(pods: Pods) -> None:
    await pods.publish(block_stored(TOKENS))
    before = await score(pods.service, score_request(TOKENS))
    await explain(pods.service.channel, score_request(TOKENS))
    await explain(pods.service.channel, score_request([1] * 64))
    after = await score(pods.service, score_request(TOKENS))
    assert before.pods[0].matched_blocks == after.pods[0].matched_blocks == 4
    port = pods.service.application.metrics_port
    url = f"http://127.0.0.1:{port}/metrics"
    with await asyncio.to_thread(urllib.request.urlopen, url) as got:
        metrics = got.read().decode()
    assert re.findall(r"^kvatlas_matched_share_count (\S+)$", metrics, re.MULTILINE) == ["2.0"]


async def test_explanations_are_served_where_scores_are_and_to_operators(pods: Pods) -> None:
    await pods.publish(block_stored(TOKENS))
    answers = [
        await explain(channel, score_request(TOKENS))
        for channel in (pods.service.channel, pods.service.admin)
    ]
    assert [rank_of(answer, POD).reason for answer in answers] == ["whole_prompt"] * 2


async def test_of_many_pods_those_that_hold_most_are_explained(pods: Pods) -> None:
    for number in range(80):
        tokens = TOKENS if number == 77 else TOKENS[:16]
        await pods.publish(block_stored(tokens), pod=f"10.1.0.{number}:8000")
    answer = await explain(pods.service.channel, score_request(TOKENS))
    assert (len(answer.pods), answer.pods_left_out, answer.is_cut) == (64, 16, True)
    assert "10.1.0.77:8000" in {pod.pod for pod in answer.pods}


@pytest.mark.parametrize(
    "fields",
    [
        {"group_idx": 2**40},
        {"group_idx": -5},
        {"medium": "t" * 5000},
        {"medium": "\x1b[2J"},
        {"token_ids": [2**62, *TOKENS[1:]]},
        {"lora_name": "l" * 5000},
        {"extra_keys": [[["image", 3], "?", 7, None], [], None, [[]]]},
    ],
)
async def test_whatever_events_contain_is_explained(pods: Pods, fields: dict[str, Any]) -> None:
    await pods.publish(block_stored(TOKENS, **fields))
    await pods.publish(removed(1, **{k: v for k, v in fields.items() if k != "token_ids"}))
    for tokens in (TOKENS, TOKENS[1:]):
        answer = await explain(pods.service.channel, score_request(tokens))
        assert rank_of(answer, POD).reason
        assert answer.ByteSize() < 30_000
    found = await look_up(pods.service.channel, engine_hashes=[1, 2])
    assert {event.sequence for event in found.blocks[0].events} <= {0, 1}


# LookupBlocks


async def test_a_block_is_looked_up_by_its_key_and_by_its_engine_hash(pods: Pods) -> None:
    await pods.publish(block_stored(TOKENS))
    await pods.publish(block_stored(TOKENS[:16]))  # another copy of hash 1
    await pods.publish(block_stored(TOKENS, first_hash=100, medium="CPU"), pod=OTHER)
    key = (await explain(pods.service.channel, score_request(TOKENS))).prompt.first_keys[0]
    by_key, by_hash, unknown = (
        await look_up(pods.service.channel, keys=[key], engine_hashes=[1, 77])
    ).blocks
    assert {(h.pod, h.tier, h.rank, h.model) for h in by_key.holders} == {
        (POD, "gpu", 0, MODEL),
        (OTHER, "cpu", 0, MODEL),
    }
    assert [(h.pod, h.tier, h.copies) for h in by_hash.holders] == [(POD, "gpu", 2)]
    assert [(m.key, list(m.pods)) for m in by_hash.meanings] == [(key, [POD])]
    assert [e.sequence for e in by_hash.events] == [1, 0]
    assert not unknown.holders
    assert not unknown.meanings


async def test_a_block_is_looked_up_at_one_pod(pods: Pods) -> None:
    await pods.publish(block_stored(TOKENS))
    await pods.publish(block_stored(TOKENS), pod=OTHER)
    (found,) = (await look_up(pods.service.channel, engine_hashes=[1], pod=OTHER)).blocks
    assert [holder.pod for holder in found.holders] == [OTHER]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"keys": [1], "pod": "nobody"}, grpc.StatusCode.NOT_FOUND),
        ({"keys": [1], "model": "nothing"}, grpc.StatusCode.NOT_FOUND),
        ({"keys": range(65)}, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
async def test_what_cannot_be_looked_up_is_refused(
    pods: Pods, request_: dict[str, Any], status: grpc.StatusCode
) -> None:
    await pods.publish(block_stored(TOKENS))
    assert (await refusal(look_up(pods.service.channel, **request_))).code == status
