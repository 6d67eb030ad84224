"""Workers change hands without losing trust: the next owner subscribes before the last one ends.

No engine here has a replay socket, so nothing could make up for what is lost.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from kvatlas.v1.trust_pb2 import TRUST_STATE_EXACT
from support.engines.model_server import ModelServer, block_stored, model_server
from support.services.one_pod import score, score_request
from support.services.replicated_fleet import ReplicatedFleet
from support.services.running import RunningService, local_configuration, running_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.stores.servers import StoreProcess

PROMPT = list(range(1000, 1000 + 64))


def next_prompt(number: int) -> list[int]:
    return list(range(5000 + 100 * number, 5000 + 100 * number + 64))


class Replicas:
    """Replicas that follow the same pods, and stop and start one by one."""

    def __init__(self, url: str, servers: list[ModelServer], stack: AsyncExitStack) -> None:
        self._fleet = ReplicatedFleet(url, stack, [])
        self.servers = servers
        self.running: dict[str, RunningService] = {}
        self._stacks: dict[str, AsyncExitStack] = {}
        self._stack = stack
        self.published = [0] * len(servers)

    async def start(self, name: str) -> None:
        settings = self._fleet.settings(name, block_size=16)
        discovery = {"pods": [server.url for server in self.servers]}
        configuration = local_configuration(**{**settings, "sources": [], "discovery": discovery})
        stack = AsyncExitStack()
        self._stack.push_async_callback(stack.aclose)
        self.running[name] = await stack.enter_async_context(running_service(configuration))
        self._stacks[name] = stack

    async def stop(self, name: str) -> None:
        await self._stacks.pop(name).aclose()
        del self.running[name]

    def publish(self) -> None:
        """Every pod stores one more prompt."""
        for number, server in enumerate(self.servers):
            count = self.published[number]
            tokens = next_prompt(1000 * number + count)
            server.ranks[0].publish(block_stored(tokens, first_hash=10 * count + 1))
            self.published[number] += 1

    async def until_exact(self) -> None:
        """Wait until every replica has every frame, and is sure of it."""
        for replica in self.running.values():
            await replica.until(
                lambda pods: (
                    len(pods) == len(self.servers)
                    and all(
                        rank.trust_state == TRUST_STATE_EXACT
                        and rank.last_sequence == self.published[0] - 1
                        for rank in pods.values()
                    )
                )
            )

    async def check(self) -> None:
        """Every replica knows every block of every pod."""
        for replica in self.running.values():
            for number, server in enumerate(self.servers):
                for count in range(self.published[number]):
                    request = score_request(next_prompt(1000 * number + count), pods=[server.pod])
                    answer = await score(replica, request)
                    assert [pod.matched_blocks for pod in answer.pods] == [4], (number, count)


@pytest.fixture
async def replicas(redis: StoreProcess) -> AsyncIterator[Replicas]:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(model_server()) for _ in range(4)]
        for server in servers:
            server.answers["/kv_event_sources"][1]["0"]["replay_endpoint"] = None
        yield Replicas(redis.url, servers, stack)


@asynccontextmanager
async def publishing(replicas: Replicas) -> AsyncIterator[None]:
    """Pods publish all the time."""

    async def publish() -> None:
        while True:
            replicas.publish()
            await asyncio.sleep(0.02)

    task = asyncio.create_task(publish())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def trust_reasons(replicas: Replicas) -> set[str]:
    """Why anything that was ever written of a worker was not exact."""
    return {
        stream.trust.reason
        for replica in replicas.running.values()
        for stream in replica.application.listener.router.streams.values()
    }


@pytest.mark.parametrize("is_busy", [True, False])
async def test_pods_without_replay_sockets_stay_exact_while_replicas_are_replaced(
    replicas: Replicas, is_busy: bool
) -> None:
    for name in ("a", "b"):
        await replicas.start(name)
    for server in replicas.servers:
        await server.ranks[0].publisher.until_subscribed()
    replicas.publish()
    await replicas.until_exact()
    async with AsyncExitStack() as stack:
        if is_busy:
            await stack.enter_async_context(publishing(replicas))
        for old, new in (("a", "c"), ("b", "d"), ("c", "a")):
            await replicas.start(new)
            await replicas.stop(old)
            assert trust_reasons(replicas) <= {""}
    replicas.publish()
    await replicas.until_exact()
    await replicas.check()


async def test_a_pod_whose_engine_restarts_while_it_changes_hands_is_not_called_exact(
    replicas: Replicas,
) -> None:
    server = replicas.servers[0]
    await replicas.start("a")
    await server.ranks[0].publisher.until_subscribed()
    replicas.publish()
    await replicas.until_exact()
    owner = replicas.running["a"].application
    leaving = asyncio.create_task(owner.replica.begin_leaving())
    await replicas.start("b")
    await leaving
    port = server.ranks[0].port
    await server.new_engine()  # elsewhere: nobody hears of it until the engine is asked
    assert server.ranks[0].port != port
    await replicas.stop("a")
    taken = replicas.running["b"]
    await taken.until(lambda pods: (server.pod, 0) in pods)
    assert (await taken.pods())[server.pod, 0].trust_state != TRUST_STATE_EXACT
