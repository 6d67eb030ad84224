"""Whatever the store holds in place of our values: no answer is wrong, none fails, all heals."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
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
    from collections.abc import AsyncIterator

    from support.engines.simulated import Prompt
    from support.stores.servers import StoreProcess

HEALED_SECONDS = 20.0
ROUNDS = 8
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


@asynccontextmanager
async def agreed_fleet(url: str) -> AsyncIterator[tuple[ReplicatedFleet, list[Prompt]]]:
    """Replicas that know everything that the engines have published."""
    async with replicated_fleet(url) as (fleet, prompts):
        for name, settings in REPLICAS.items():
            await fleet.start(name, lease_seconds=3.0, **settings)
        await fleet.until_connected()
        fleet.publish()
        await until_applied(fleet)
        await until_healed(fleet, prompts[:3])
        yield fleet, prompts


KEYS = {
    "the layout": "{namespace}:layout",
    "a worker": "{namespace}:3:{{0}}:w:10.0.0.1:8000/0",
    "the records": "{namespace}:3:{{0}}:workers",
    "the reports": "{namespace}:3:{{0}}:reports",
    "the requests": "{namespace}:3:{{0}}:requests",
    "the journal": "{namespace}:3:{{0}}:journal",
    "the garbage": "{namespace}:3:{{0}}:garbage",
    "the stamps": "{namespace}:3:{{0}}:applied",
    "the replicas": "{namespace}:3:{{0}}:replicas",
    "the registry": "{namespace}:3:{{0}}:registry",
    "the bits": "{namespace}:3:{{0}}:taken_bits:sim/model",
}


@pytest.mark.parametrize("what", KEYS)
async def test_a_key_of_another_type_is_shown_as_malformed_and_heals(
    redis: StoreProcess, what: str
) -> None:
    async with agreed_fleet(redis.url) as (fleet, prompts):
        key = KEYS[what].format(namespace=fleet.namespace)
        with redis.client() as client:
            was = client.type(key)
            client.delete(key)
            client.zadd(key, {b"\xc1\xff": 1.0})
            shown: set[str] = set()
            async with asyncio.timeout(DEADLINE_SECONDS):
                while "malformed" not in shown:
                    await asked(fleet, prompts[:3])
                    for name in fleet.replicas:
                        shown.add((await fleet.listed(name)).shared_index.store_failure)
            await until_healed(fleet, prompts[:3])
            # Where nothing had been written yet, it may have been by now.
            assert was == b"none" or client.type(key) in (was, b"none")


async def test_a_bitmap_with_bits_of_nobody_is_no_answer(redis: StoreProcess) -> None:
    """Nobody can tell which of its bits are right: all of them are written again."""
    async with agreed_fleet(redis.url) as (fleet, prompts):
        with redis.client() as client:
            registry = client.get(f"{fleet.namespace}:3:{{0}}:registry")
            assert isinstance(registry, bytes)
            for key in client.scan_iter(f"{fleet.namespace}:3:{{0}}:b{registry.decode()}*"):
                client.set(key, b"\xff" * 40)
            while client.get(f"{fleet.namespace}:3:{{0}}:registry") == registry:
                await asked(fleet, prompts[:3])
            await until_healed(fleet, prompts)


async def damaged_and_healed(redis: StoreProcess, seed: int) -> None:
    random = Random(seed)
    async with agreed_fleet(redis.url) as (fleet, prompts):
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


@pytest.mark.parametrize("seed", [1])
async def test_damaged_keys_are_failures_of_the_store_that_heal(
    redis: StoreProcess, seed: int
) -> None:
    await damaged_and_healed(redis, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [2, *range(100, 200)])
async def test_keys_damaged_in_many_ways_are_failures_of_the_store_that_heal(
    redis: StoreProcess, seed: int
) -> None:
    await damaged_and_healed(redis, seed)
