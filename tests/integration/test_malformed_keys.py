"""Whatever the store holds in place of our values: no answer is wrong, none fails, all heals."""

from __future__ import annotations

import asyncio
import time
from random import Random
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from kvatlas.v1 import scoring_pb2_grpc
from kvatlas.v1.trust_pb2 import TRUST_STATE_EXACT
from support.deadlines import DEADLINE_SECONDS, stretched
from support.services.replicated_fleet import ReplicatedFleet, replicated_fleet, score_request
from support.stores.mutations import Mutator

if TYPE_CHECKING:
    from support.engines.simulated import Prompt
    from support.stores.servers import StoreProcess

HEALED_SECONDS = 20.0
ROUNDS = 12
# With a copy, without one, and with one that is never fresh enough: it asks the store first.
REPLICAS: dict[str, dict[str, Any]] = {
    "a": {},
    "b": {"copy_blocks": False},
    "c": {"max_lag_seconds": 0.001},
}


async def asked(fleet: ReplicatedFleet, prompts: list[Prompt]) -> int:
    """Score prompts at every replica; how many answers were refused or not exact.

    No exact answer may be wrong, and none may fail in another way than the store's.
    """
    doubted = 0
    for name, service in fleet.replicas.items():
        stub = scoring_pb2_grpc.ScoringServiceStub(service.channel)
        for prompt in prompts:
            try:
                answer = await stub.Score(score_request(prompt))
            except grpc.aio.AioRpcError as error:
                assert error.code() == grpc.StatusCode.UNAVAILABLE, error.details()
                doubted += 1
                continue
            scores = {score.pod: score for score in answer.pods}
            for engine in fleet.engines:
                score = scores.get(engine.name)
                if score is None or score.trust_state != TRUST_STATE_EXACT:
                    doubted += 1
                else:
                    assert score.matched_blocks == engine.resident(prompt), (name, engine.name)
    return doubted


async def until_applied(fleet: ReplicatedFleet) -> None:
    """Wait until every replica knows of every frame."""
    last = {(engine.name, 0): len(engine.frames) - 1 for engine in fleet.engines}
    for service in fleet.replicas.values():
        await service.until(
            lambda ranks: all(
                worker in ranks and ranks[worker].last_sequence == number
                for worker, number in last.items()
            )
        )


async def until_healed(fleet: ReplicatedFleet, prompts: list[Prompt]) -> float:
    """Wait until every answer is exact, and no replica shows a failure; the seconds it took."""
    began = time.monotonic()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await asked(fleet, prompts) or any(
            [(await fleet.listed(name)).shared_index.store_failure for name in fleet.replicas]
        ):
            pass
    return time.monotonic() - began


async def damaged_and_healed(redis: StoreProcess, seed: int) -> None:
    random = Random(seed)
    async with replicated_fleet(redis.url, seed=1) as (fleet, prompts):
        for name, settings in REPLICAS.items():
            await fleet.start(name, lease_seconds=3.0, **settings)
        await fleet.until_connected()
        fleet.publish()
        await until_applied(fleet)
        done: list[str] = []
        with redis.client() as client:
            mutator = Mutator(client, fleet.namespace, random)
            try:
                for _ in range(ROUNDS):
                    done.append(mutator.damage())
                    some = random.sample(prompts, 3)
                    for _ in range(3):
                        await asked(fleet, some)
                    if random.random() < 0.4:  # owners write while it is damaged
                        engine = random.choice(fleet.engines)
                        engine.serve(random.choice(prompts))
                        fleet.publish()
                        await until_applied(fleet)
                    took = await until_healed(fleet, some)
                    assert took < stretched(HEALED_SECONDS)
                await asked(fleet, prompts)
                for name, service in fleet.replicas.items():
                    assert not service.application.loops.deaths, name
            except BaseException as error:
                error.add_note(f"seed {seed}: {done}")
                raise


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_damaged_keys_are_failures_of_the_store_that_heal(
    redis: StoreProcess, seed: int
) -> None:
    await damaged_and_healed(redis, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 200))
async def test_keys_damaged_in_many_ways_are_failures_of_the_store_that_heal(
    redis: StoreProcess, seed: int
) -> None:
    await damaged_and_healed(redis, seed)
