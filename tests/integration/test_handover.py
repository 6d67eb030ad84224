"""Workers change hands without losing trust: the next owner subscribes before the last one ends.

No engine here has a replay socket, so nothing could make up for what is lost.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from kvatlas.v1.trust_pb2 import TRUST_STATE_EXACT
from support.deadlines import DEADLINE_SECONDS, stretched
from support.engines.model_server import ModelServer, block_stored, model_server
from support.engines.pods_file import PodsFile
from support.services.one_pod import score, score_request
from support.services.replicated_fleet import ReplicatedFleet
from support.services.running import RunningService, local_configuration, running_service

from service.replication import SharedReplica
from store import rendezvous_owner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection
    from pathlib import Path

    from support.stores.servers import StoreProcess

PROMPT = list(range(1000, 1000 + 64))


def next_prompt(number: int) -> list[int]:
    return list(range(5000 + 100 * number, 5000 + 100 * number + 64))


def endpoints_of(replica: RunningService) -> set[str]:
    """Where the workers publish whose events this replica applies."""
    streams = replica.application.listener.router.streams.values()
    return {stream.source.endpoint for stream in streams if stream.source is not None}


class Replicas:
    """Replicas that follow the same pods, and stop and start one by one."""

    def __init__(
        self, url: str, servers: list[ModelServer], file: PodsFile, stack: AsyncExitStack
    ) -> None:
        self._fleet = ReplicatedFleet(url, stack, [])
        self.lease_seconds = stretched(2.0)  # nobody crashes here, and nobody is to seem to
        self.servers = servers
        self._file = file
        self.list_pods(servers)
        self.running: dict[str, RunningService] = {}
        self._stacks: dict[str, AsyncExitStack] = {}
        self._stack = stack
        self.published = [0] * len(servers)
        self.ask_seconds = 300

    async def start(self, name: str) -> None:
        self._fleet.lease_seconds = self.lease_seconds
        settings = self._fleet.settings(name, block_size=16)
        discovery = {"file": str(self._file.path), "ask_seconds": self.ask_seconds}
        configuration = local_configuration(**{**settings, "sources": [], "discovery": discovery})
        stack = AsyncExitStack()
        self._stack.push_async_callback(stack.aclose)
        self.running[name] = await stack.enter_async_context(running_service(configuration))
        self._stacks[name] = stack

    async def stop(self, name: str) -> None:
        await self._stacks.pop(name).aclose()
        del self.running[name]

    def list_pods(self, servers: Collection[ModelServer]) -> None:
        """Let these pods be discovered, and no others."""
        self.listed = [server.pod for server in servers]
        self._file.write(*(server.url for server in servers))

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

    async def until_shared(self) -> None:
        """Wait until each source is listened to by the replica that it is assigned to."""
        names = sorted(self.running)
        for name, replica in self.running.items():
            meant = {
                endpoint
                for server in self.servers
                if rendezvous_owner(endpoint := server.ranks[0].publisher.endpoint, names) == name
            }
            async with asyncio.timeout(DEADLINE_SECONDS):
                while endpoints_of(replica) != meant:
                    await replica.pods()

    async def check(self) -> None:
        """Every replica knows every block of every pod."""
        for replica in self.running.values():
            for number, server in enumerate(self.servers):
                for count in range(self.published[number]):
                    request = score_request(next_prompt(1000 * number + count), pods=[server.pod])
                    answer = await score(replica, request)
                    assert [pod.matched_blocks for pod in answer.pods] == [4], (number, count)


@pytest.fixture
async def replicas(redis: StoreProcess, tmp_path: Path) -> AsyncIterator[Replicas]:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(model_server()) for _ in range(4)]
        for server in servers:
            server.answers["/kv_event_sources"][1]["0"]["replay_endpoint"] = None
        yield Replicas(redis.url, servers, PodsFile(tmp_path / "pods.json"), stack)


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


async def test_a_replica_that_has_not_heard_of_the_next_one_hands_its_pods_over_to_it(
    replicas: Replicas,
) -> None:
    replicas.lease_seconds = 30.0
    await replicas.start("a")
    for server in replicas.servers:
        await server.ranks[0].publisher.until_subscribed()
    replicas.publish()
    await replicas.until_exact()
    leaving = replicas.running["a"].application.replica
    assert isinstance(leaving, SharedReplica)
    await leaving._loops.stop("heartbeat")  # its next one comes too late
    await replicas.start("b")
    assert leaving.membership.live_names == ["a"]
    await replicas.stop("a")
    replicas.publish()
    await replicas.until_exact()
    await replicas.check()


async def test_pods_stay_with_their_owner_while_the_next_one_cannot_ask_their_engines(
    replicas: Replicas,
) -> None:
    await replicas.start("a")
    for server in replicas.servers:
        await server.ranks[0].publisher.until_subscribed()
    replicas.publish()
    await replicas.until_exact()
    for server in replicas.servers:
        await server.refuse()
    await replicas.start("b")
    await asyncio.sleep(4)  # more than a replica that stops gives the next one
    assert len(replicas.running["a"].application.listener.router.streams) == 4
    for server in replicas.servers:
        await server.serve()
    replicas.publish()
    await replicas.until_exact()
    await replicas.until_shared()
    assert trust_reasons(replicas) <= {""}
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


class Restarting:
    """Replicas and engines that come and go at random, and what the engines hold."""

    def __init__(self, replicas: Replicas, seed: int) -> None:
        self.replicas = replicas
        self.dice = random.Random(seed)
        self._held: list[set[int]] = [set() for _ in replicas.servers]
        self._prompts = 0
        self._names = itertools.count()
        self.exact = 0

    async def start(self) -> None:
        await self.replicas.start(f"r{next(self._names)}")

    async def step(self) -> None:
        running = self.replicas.running
        match self.dice.randrange(5):
            case 0 if len(running) < 3:
                await self.start()
            case 1 if len(running) > 1:
                await self.replicas.stop(self.dice.choice(list(running)))
            case 2 if len(running) > 2:  # two leave at once
                leaving = self.dice.sample(list(running), 2)
                await asyncio.gather(*map(self.replicas.stop, leaving))
            case 3:
                number = self.dice.randrange(len(self._held))
                server = self.replicas.servers[number]
                await server.new_engine()
                server.say_vllm()
                server.answers["/kv_event_sources"][1]["0"]["replay_endpoint"] = None
                self._held[number] = set()
            case _:
                for number in range(len(self._held)):
                    if self.dice.random() < 0.7:
                        self._publish(number)

    async def list_others(self) -> None:
        """A pod goes, or comes back, in the middle of whatever else happens."""
        await asyncio.sleep(self.dice.random())
        servers = self.replicas.servers
        some = self.dice.sample(servers, self.dice.randrange(1, len(servers) + 1))
        self.replicas.list_pods(some)

    def _publish(self, number: int) -> None:
        prompt = self._prompts
        self._prompts += 1
        event = block_stored(next_prompt(prompt), first_hash=10 * prompt + 1)
        self.replicas.servers[number].ranks[0].publish(event)
        self._held[number].add(prompt)

    async def check(self) -> None:
        """What is exact is true: nothing that is gone is claimed, and nothing is missing."""
        await asyncio.sleep(stretched(1.5))  # what has been published has come by now
        for replica in self.replicas.running.values():
            await replica.until(lambda pods: {pod for pod, _ in pods} <= set(self.replicas.listed))
        pods = [server.pod for server in self.replicas.servers]
        for replica in self.replicas.running.values():
            for prompt in range(max(0, self._prompts - 12), self._prompts):
                answer = await score(replica, score_request(next_prompt(prompt), pods=pods))
                for pod in answer.pods:
                    if pod.trust_state == TRUST_STATE_EXACT:
                        self.exact += 1
                        is_held = prompt in self._held[pods.index(pod.pod)]
                        assert pod.matched_blocks == (4 if is_held else 0), (pod.pod, prompt)


async def restart_at_random(
    replicas: Replicas, seed: int, steps: int, *, pods_go: bool = False
) -> None:
    replicas.ask_seconds = 1
    restarting = Restarting(replicas, seed)
    await restarting.start()
    await restarting.start()
    for _ in range(steps):
        listing = asyncio.create_task(restarting.list_others()) if pods_go else None
        for _ in range(restarting.dice.randrange(1, 4)):
            await restarting.step()
        if listing is not None:
            await listing
        await restarting.check()
    print(seed, restarting.exact)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("pods_go", [False, True])
async def test_what_is_exact_is_true_while_replicas_and_engines_restart(
    replicas: Replicas, seed: int, pods_go: bool
) -> None:
    await restart_at_random(replicas, seed, 5, pods_go=pods_go)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(1000, 1040))
@pytest.mark.parametrize("pods_go", [False, True])
async def test_what_is_exact_stays_true_for_long(
    replicas: Replicas, seed: int, pods_go: bool
) -> None:
    await restart_at_random(replicas, seed, 40, pods_go=pods_go)
