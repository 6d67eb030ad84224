"""ExplainService of replicas that share an index: each explains what it knows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support.services.explained import explain, look_up, rank_of
from support.services.replicated_fleet import replicated_fleet, score_request

if TYPE_CHECKING:
    from support.stores.servers import StoreProcess

_BLOCK = 8


@pytest.mark.parametrize("copy_blocks", [True, False])
async def test_every_replica_names_the_first_missing_block_of_every_prompt(
    redis: StoreProcess, copy_blocks: bool
) -> None:
    async with replicated_fleet(redis.url, seed=7) as (fleet, prompts):
        for name in "ab":
            await fleet.start(name, copy_blocks=copy_blocks)
        await fleet.until_connected()
        fleet.publish()
        await fleet.until_agreed()
        owners = fleet.expected_owners()
        missing = 0
        for name, service in fleet.replicas.items():
            for prompt in prompts:
                answer = await explain(service.channel, score_request(prompt))
                for engine in fleet.engines:
                    rank, held = rank_of(answer, engine.name), engine.resident(prompt)
                    total = len(prompt.tokens) // _BLOCK
                    assert rank.matched_blocks == held
                    assert rank.owner == (
                        "" if owners[engine.name] == name else owners[engine.name]
                    )
                    assert rank.HasField("first_missing") == (held < total)
                    if held < total:
                        missing += 1
                        block = rank.first_missing
                        assert (block.index, block.first_token, block.end_token) == (
                            *(held, held * _BLOCK, (held + 1) * _BLOCK),
                        )
                    if rank.owner:
                        assert not rank.first_missing.events
                        assert rank.HasField("held_after_missing") == (copy_blocks and held < total)
        assert missing > 20


async def test_a_replica_says_who_remembers_the_events_of_another_one_s_pod(
    redis: StoreProcess,
) -> None:
    async with replicated_fleet(redis.url, seed=7) as (fleet, prompts):
        for name in "ab":
            await fleet.start(name)
        await fleet.until_connected()
        fleet.publish()
        await fleet.until_agreed()
        prompt = next(p for p in prompts if fleet.engines[0].resident(p))
        foreign = replace(prompt, tokens=(*prompt.tokens[:_BLOCK], *range(90_000, 90_064)))
        owner = fleet.expected_owners()[fleet.engines[0].name]
        (other,) = set(fleet.replicas) - {owner}
        answer = await explain(fleet.replicas[other].channel, score_request(foreign))
        rank = rank_of(answer, fleet.engines[0].name)
        assert (rank.reason, rank.owner) == ("unknown", owner)
        assert f"replica {owner}" in rank.summary
        owned = await explain(fleet.replicas[owner].channel, score_request(foreign))
        assert rank_of(owned, fleet.engines[0].name).reason == "never_stored"


async def test_a_replica_without_a_copy_says_that_it_knows_its_own_pods_only(
    redis: StoreProcess,
) -> None:
    async with replicated_fleet(redis.url, seed=7) as (fleet, _):
        service = await fleet.start("a", copy_blocks=False)
        await fleet.until_connected()
        assert "store.copy_blocks" in (await look_up(service.channel, keys=[1])).summary


async def test_blocks_of_another_replica_s_pod_are_found_by_key(redis: StoreProcess) -> None:
    async with replicated_fleet(redis.url, seed=7) as (fleet, prompts):
        for name in "ab":
            await fleet.start(name)
        await fleet.until_connected()
        fleet.publish()
        await fleet.until_agreed()
        prompt = next(p for p in prompts if fleet.engines[0].resident(p))
        for service in fleet.replicas.values():
            keys = (await explain(service.channel, score_request(prompt))).prompt.first_keys
            (found,) = (await look_up(service.channel, keys=[keys[0]])).blocks
            want = {e.name for e in fleet.engines if e.resident(prompt)}
            assert {holder.pod for holder in found.holders} == want
