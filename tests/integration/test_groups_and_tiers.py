"""Groups, tiers, block sizes and frames as engines have them: events in, right counts out."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from kvatlas.v1 import scoring_pb2
from kvatlas.v1.trust_pb2 import (
    TRUST_STATE_DEGRADED,
    TRUST_STATE_EXACT,
    TRUST_STATE_PARTIAL,
)
from support.engines.publisher import Publisher
from support.services.one_pod import MODEL, score, score_request, service_with_pod
from support.services.running import RunningService

POD = ("10.0.0.1:8000", 0)
TOPIC = f"kv@{POD[0]}@{MODEL}"
FULL: dict[str, Any] = {"kv_cache_spec_kind": "full_attention"}
SWA: dict[str, Any] = {"kv_cache_spec_kind": "sliding_window", "kv_cache_spec_sliding_window": 128}


def stored(hashes: list[int], tokens: list[int], size: int = 16, **fields: Any) -> dict[str, Any]:
    return {
        "type": "BlockStored",
        "block_hashes": hashes,
        "parent_block_hash": None,
        "token_ids": tokens,
        "block_size": size,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
        **fields,
    }


def removed(hashes: list[int], medium: str = "GPU", **fields: Any) -> dict[str, Any]:
    return {"type": "BlockRemoved", "block_hashes": hashes, "medium": medium, **fields}


def frame(number: int, *events: dict[str, Any], epoch: bytes = b"") -> list[bytes]:
    sequence = number.to_bytes(8, "big") + epoch
    return [TOPIC.encode(), sequence, msgpack.packb([1.0 + number, list(events), 0])]


async def publish(service: RunningService, pod: Publisher, *frames: list[bytes]) -> None:
    """Publish frames as the pod, and wait until they are applied."""
    for message in frames:
        pod.send(message)
    await service.until_applied({POD: int.from_bytes(frames[-1][1][:8], "big")})


async def answer(service: RunningService, tokens: list[int]) -> scoring_pb2.PodScore:
    (found,) = (await score(service, score_request(tokens))).pods
    return found


async def test_a_sparse_group_may_come_before_the_one_that_explains_it(
    service: RunningService, pod: Publisher
) -> None:
    tokens = list(range(128))
    window = {**SWA, "kv_cache_spec_sliding_window": 64}
    await publish(
        service,
        pod,
        frame(
            0,
            stored([4, 5, 6, 7, 8], tokens, group_idx=0, **window),
            stored(list(range(1, 9)), tokens, group_idx=1, **FULL),
        ),
    )
    found = await answer(service, [*tokens, 1])
    assert (found.trust_state, found.matched_blocks) == (TRUST_STATE_EXACT, 8)
    assert found.reusable_tokens == 128
    found = await answer(service, tokens)  # the last token is always computed
    assert (found.matched_blocks, found.reusable_tokens, found.score) == (8, 112, 8)


async def test_a_removal_removes_from_its_cache_group_alone(
    service: RunningService, pod: Publisher
) -> None:
    tokens = list(range(128))
    hashes = list(range(1, 9))
    await publish(
        service,
        pod,
        frame(0, stored(hashes, tokens, group_idx=0, **SWA)),
        frame(1, stored(hashes, tokens, group_idx=1, **FULL)),
        frame(2, removed([1], group_idx=0), removed([2], group_idx=0)),
    )
    found = await answer(service, [*tokens, 1])
    assert (found.trust_state, found.matched_blocks) == (TRUST_STATE_EXACT, 8)
    assert (found.reusable_tokens, found.score) == (0, 0)  # the window is not whole any more
    pods = await service.pods()
    groups = [(of.group, of.kind, of.window, of.block_size) for of in pods[POD].groups]
    assert groups == [(0, "sliding_window", 128, 16), (1, "full_attention", 0, 16)]


@pytest.mark.parametrize("mamba_first", [True, False])
@pytest.mark.parametrize(("block_size", "blocks"), [(16, 480), (64, 120)])
async def test_mamba_events_have_one_hash_for_thousands_of_tokens(
    block_size: int, blocks: int, mamba_first: bool
) -> None:
    tokens = list(range(7680))
    async with service_with_pod(index={"block_size": block_size}) as (service, pod):
        for chunk in (0, 1):
            part = tokens[chunk * 3840 : (chunk + 1) * 3840]
            hashes = list(range(chunk * 5 + 1, chunk * 5 + 6))
            parent = {"parent_block_hash": 5 if chunk else None}
            events = [
                stored(hashes[-1:], part, 768, group_idx=g, kv_cache_spec_kind="mamba", **parent)
                for g in range(3)
            ]
            main: dict[str, Any] = {"group_idx": 3, "kv_cache_spec_kind": "mla_attention", **parent}
            events.insert(3 if mamba_first else 0, stored(hashes, part, 768, **main))
            await publish(service, pod, frame(chunk, *events))
        found = await answer(service, [*tokens, 1])
        assert (found.trust_state, found.matched_blocks) == (TRUST_STATE_EXACT, blocks)
        assert found.reusable_tokens == 7680
        found = await answer(service, tokens[:5000])
        assert found.reusable_tokens == 3840  # where there is a state


async def test_a_block_is_held_if_all_main_groups_hold_it(
    service: RunningService, pod: Publisher
) -> None:
    tokens = list(range(64))
    await publish(
        service,
        pod,
        frame(0, *(stored([1, 2, 3, 4], tokens, group_idx=g, **FULL) for g in (0, 1))),
        frame(1, removed([3], group_idx=1)),
    )
    found = await answer(service, tokens)
    assert (found.trust_state, found.matched_blocks, found.score) == (TRUST_STATE_EXACT, 2, 2)


async def test_a_partly_cached_block_does_not_match(
    service: RunningService, pod: Publisher
) -> None:
    tokens = list(range(40))
    window = {**SWA, "kv_cache_spec_sliding_window": 64, "group_idx": 1}
    await publish(
        service,
        pod,
        frame(
            0,
            stored([1, 2], tokens[:32], 16, group_idx=0, **FULL),
            stored([11, 1, 12, 2], tokens[:32], 8, **window),
        ),
        frame(1, stored([3], tokens[32:], 8, parent_block_hash=2, group_idx=0, **FULL)),
    )
    found = await answer(service, [*tokens, 1])
    assert (found.trust_state, found.matched_blocks) == (TRUST_STATE_EXACT, 2)
    assert found.reusable_tokens == 32
    await publish(service, pod, frame(2, removed([3], group_idx=0)))
    assert (await answer(service, tokens)).trust_state == TRUST_STATE_EXACT


async def test_an_offload_tier_loads_whole_chunks(service: RunningService, pod: Publisher) -> None:
    tokens = list(range(64))
    await publish(service, pod, frame(0, stored([1, 2, 3, 4], tokens, medium="CPU")))
    assert (await answer(service, tokens[:32])).matched_blocks == 0
    found = await answer(service, tokens)
    assert found.matched_blocks == 4
    assert found.score == pytest.approx(3.2)
    await publish(service, pod, frame(1, stored([5, 6, 7, 8], list(range(100, 164)))))
    assert (await answer(service, list(range(100, 132)))).matched_blocks == 2


@pytest.mark.settings(models=[{"name": MODEL, "offload_chunk_blocks": 4}])
async def test_an_offloaded_chunk_may_be_announced_by_its_last_block_alone(
    service: RunningService, pod: Publisher
) -> None:
    tokens = list(range(64))
    await publish(
        service,
        pod,
        frame(0, stored([1, 2, 3, 4], tokens)),
        frame(1, stored([4], [], 0, medium="CPU"), removed([1]), removed([2])),
        frame(2, removed([3]), removed([4])),
    )
    found = await answer(service, [*tokens, 1])
    assert (found.matched_blocks, found.reusable_tokens) == (4, 64)
    assert (await answer(service, tokens[:48])).matched_blocks == 0


@pytest.mark.parametrize(
    ("medium", "tier", "weight"),
    [
        ("CPU_TIER1", "cpu", 0.8),
        ("CPU_TIER2", "cpu", 0.8),
        ("DISK", "disk", 0.3),
        ("NVME", "disk", 0.3),
        ("STORAGE", "shared_storage", 0.4),
        ("FS", "shared_storage", 0.4),
        ("SHARED_STORAGE", "shared_storage", 0.4),
        ("OBJ", "object_store", 0.2),
        ("OBJECT_STORE", "object_store", 0.2),
        ("EXTERNAL", "external", 0.0),
    ],
)
async def test_every_medium_has_its_tier_and_weight(
    service: RunningService, pod: Publisher, medium: str, tier: str, weight: float
) -> None:
    tokens = list(range(64))
    await publish(service, pod, frame(0, stored([1, 2, 3, 4], tokens, medium=medium)))
    found = await answer(service, tokens)
    assert dict(found.matched_blocks_by_tier) == {tier: 4}
    assert found.score == pytest.approx(4 * weight)


async def test_media_of_one_tier_are_the_same_tier(service: RunningService, pod: Publisher) -> None:
    tokens = list(range(64))
    await publish(
        service,
        pod,
        frame(0, stored([1, 2, 3, 4], tokens, medium="FS")),
        frame(1, removed([1, 2, 3, 4], "SHARED_STORAGE")),
    )
    assert (await answer(service, tokens)).matched_blocks == 0
    assert not (await service.pods())[POD].skipped


@pytest.mark.parametrize(("held", "blocks"), [(2, 33), (1, 16)])
@pytest.mark.settings(index={"block_size": 64})
async def test_engine_block_sizes_need_not_divide_ours_nor_ours_theirs(
    service: RunningService, pod: Publisher, held: int, blocks: int
) -> None:
    tokens = list(range(2112))
    await publish(service, pod, frame(0, stored([1, 2], tokens, 1056)))
    if held == 1:
        await publish(service, pod, frame(1, removed([2])))
    found = await answer(service, [*tokens, 1])
    assert (found.trust_state, found.matched_blocks) == (TRUST_STATE_EXACT, blocks)
    assert found.reusable_tokens == 1056 * held
    assert (await answer(service, [*tokens[:1040], *range(9000, 9100)])).matched_blocks == 0


async def test_an_engine_reuses_whole_blocks_of_its_own(
    service: RunningService, pod: Publisher
) -> None:
    tokens = list(range(64))
    await publish(service, pod, frame(0, stored([1, 2], tokens, 32)))
    found = await answer(service, [*tokens[:48], *range(900, 1000)])
    assert (found.matched_blocks, found.reusable_tokens, found.score) == (2, 32, 2)


async def test_events_of_another_cache_change_nothing(
    service: RunningService, pod: Publisher
) -> None:
    tokens = list(range(512))
    main: dict[str, Any] = {"group_idx": 0, "kv_cache_spec_kind": "mla_attention"}
    await publish(
        service,
        pod,
        frame(0, stored([100], tokens[:256], 256, **main)),
        frame(1, stored([12345], tokens[4:8], 4, parent_block_hash=77, **main)),
        frame(2, stored([101], tokens[256:], 256, parent_block_hash=100, **main)),
        frame(3, removed([12345], group_idx=0)),
    )
    found = await answer(service, [*tokens, 1])
    assert (found.trust_state, found.reusable_tokens) == (TRUST_STATE_EXACT, 512)


EPOCH, OTHER_EPOCH = b"a" * 16, b"b" * 16


async def test_a_changed_epoch_is_a_restart_and_a_heartbeat_is_none(
    service: RunningService, pod: Publisher
) -> None:
    tokens = list(range(32))
    await publish(service, pod, frame(0, stored([1, 2], tokens), epoch=EPOCH))
    heartbeat = [TOPIC.encode(), bytes(8) + EPOCH, b""]
    await publish(service, pod, heartbeat)
    more = stored([3], list(range(32, 48)), parent_block_hash=2)
    await publish(service, pod, frame(1, more, epoch=EPOCH))
    found = await answer(service, list(range(48)))
    assert (found.trust_state, found.matched_blocks) == (TRUST_STATE_EXACT, 3)
    pod.send(frame(2, stored([9], list(range(900, 916))), epoch=OTHER_EPOCH))
    await service.until(lambda pods: pods[POD].restarts == 1)
    assert (await answer(service, list(range(48)))).matched_blocks == 0


async def test_a_batch_that_is_a_map_is_applied(service: RunningService, pod: Publisher) -> None:
    tokens = list(range(32))
    batch = {"data_parallel_rank": 0, "events": [stored([1, 2], tokens)], "ts": 1.0, "new": [1]}
    await publish(service, pod, [TOPIC.encode(), bytes(8), msgpack.packb(batch)])
    found = await answer(service, tokens)
    assert (found.trust_state, found.matched_blocks) == (TRUST_STATE_EXACT, 2)


async def test_a_block_has_as_many_copies_as_the_engine_says(
    service: RunningService, pod: Publisher
) -> None:
    tokens = list(range(16))
    await publish(
        service,
        pod,
        frame(0, stored([1], tokens), stored([1], tokens)),
        frame(1, removed([1], remaining_copy_counts=[0])),
    )
    assert (await answer(service, tokens)).matched_blocks == 0
    await publish(
        service,
        pod,
        frame(2, stored([1], tokens), stored([1], tokens, origin="REUSED")),
        frame(3, removed([1])),
    )
    found = await answer(service, tokens)
    assert (found.trust_state, found.matched_blocks) == (TRUST_STATE_EXACT, 0)


@pytest.mark.parametrize(
    ("strings", "state"), [("auto", TRUST_STATE_DEGRADED), ("none", TRUST_STATE_EXACT)]
)
async def test_a_pod_whose_events_cannot_carry_salts_is_never_exact(
    strings: str, state: int
) -> None:
    tokens = list(range(32))
    event = ["BlockStored", [1, 2], None, tokens, 16, None, "GPU", None]
    source = {"endpoint": "tcp://127.0.0.1:0", "bind": True, "extra_strings": strings}
    async with service_with_pod(sources=[source]) as (service, pod):
        payload = msgpack.packb([1.0, [event], 0])
        await publish(service, pod, [TOPIC.encode(), bytes(8), payload])
        found = await answer(service, tokens)
        assert (found.trust_state, found.matched_blocks) == (state, 2)
        assert found.trust_reason == ("extra_keys_not_sent" if strings == "auto" else "")


async def test_blocks_after_an_unannounced_parent_wait_and_their_neighbours_do_not(
    service: RunningService, pod: Publisher
) -> None:
    tokens = list(range(32))
    mamba: dict[str, Any] = {"group_idx": 0, "kv_cache_spec_kind": "mamba"}
    await publish(
        service,
        pod,
        frame(0, stored([2], tokens, **mamba), stored([1, 2], tokens, group_idx=1, **FULL)),
        frame(1, stored([9], list(range(50, 66)), parent_block_hash=77, group_idx=1, **FULL)),
    )
    found = await answer(service, tokens)
    assert (found.trust_state, found.trust_reason) == (TRUST_STATE_PARTIAL, "orphans")
    assert found.matched_blocks == 2


async def test_speculation_that_is_seen_and_not_configured_leaves_a_bound(
    service: RunningService, pod: Publisher
) -> None:
    tokens = list(range(64))
    await publish(
        service,
        pod,
        frame(0, stored([1, 2, 3, 4], tokens, lookahead_token_ids=[[1], [2], [3], [4]])),
    )
    found = await answer(service, [*tokens, 1])
    assert (found.reusable_tokens, found.reusable_is_bound) == (64, True)


@pytest.mark.settings(models=[{"name": MODEL, "speculative_decoding": True}])
async def test_a_draft_model_costs_one_reusable_block(
    service: RunningService, pod: Publisher
) -> None:
    tokens = list(range(64))
    await publish(service, pod, frame(0, stored([1, 2, 3, 4], tokens)))
    found = await answer(service, [*tokens, 1])
    assert (found.matched_blocks, found.reusable_tokens) == (4, 48)
    assert not found.reusable_is_bound
