"""Several replicas of the service over one store: the same pods and scores, whoever is asked."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import zmq
from engine import NaiveEngine, Prompt, workload
from fleet import PATIENCE, Publisher, Running, configure, running
from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc, scoring_pb2, scoring_pb2_grpc
from kvatlas.v1.trust_pb2 import TRUST_STATE_EXACT, TRUST_STATE_RECOVERING
from servers import StoreProcess, binary, store_process

from store import chosen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

NAMESPACES = itertools.count()
MODEL = "sim/model"


@pytest.fixture(scope="module")
def redis() -> Iterator[StoreProcess]:
    if binary("redis") is None:
        pytest.skip("there is no redis-server on this machine")
    with store_process("redis") as process:
        yield process


class Fleet:
    """Engines that publish, and replicas that listen to each of them."""

    def __init__(self, url: str, stack: AsyncExitStack, engines: list[NaiveEngine]) -> None:
        self._stack = stack
        self.engines = engines
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        stack.callback(self.context.term)
        self.publishers = [Publisher(self.context) for _ in engines]
        for publisher in self.publishers:
            stack.callback(publisher.close)
        self.sent = [0] * len(engines)
        self.url = url
        self.namespace = f"replicas{next(NAMESPACES)}"
        self.replicas: dict[str, Running] = {}
        self._stacks: dict[str, AsyncExitStack] = {}

    def settings(self, name: str, **more: Any) -> dict[str, Any]:
        sources = [
            {"endpoint": publisher.endpoint, "pod": engine.name, "model": MODEL}
            for publisher, engine in zip(self.publishers, self.engines, strict=True)
        ]
        store = {
            "url": self.url,
            "namespace": self.namespace,
            "replica": name,
            "lease_seconds": 0.6,
            **more,
        }
        return {"sources": sources, "index": {"block_size": 8}, "store": store}

    async def start(self, name: str, **more: Any) -> Running:
        stack = await self._stack.enter_async_context(AsyncExitStack())
        service = await stack.enter_async_context(running(configure(**self.settings(name, **more))))
        self.replicas[name], self._stacks[name] = service, stack
        return service

    async def stop(self, name: str) -> None:
        del self.replicas[name]
        await self._stacks.pop(name).aclose()

    async def connected(self) -> None:
        """Wait until each engine has a subscriber, and all agree on whose it is."""
        for publisher in self.publishers:
            await publisher.subscribed()
        names = sorted(self.replicas)
        want = {
            engine.name: chosen(publisher.endpoint, names)
            for publisher, engine in zip(self.publishers, self.engines, strict=True)
        }
        async with asyncio.timeout(PATIENCE):
            while True:
                answers = {name: await self.listed(name) for name in names}
                if all(
                    list(answer.shared_index.live_replicas) == names
                    and self.owners(name, answer) == want
                    and not is_recovering(answer)
                    for name, answer in answers.items()
                ):
                    return

    async def listed(self, name: str) -> fleet_pb2.ListPodsResponse:
        stub = fleet_pb2_grpc.FleetServiceStub(self.replicas[name].channel)
        answer: fleet_pb2.ListPodsResponse = await stub.ListPods(fleet_pb2.ListPodsRequest())
        return answer

    @staticmethod
    def owners(name: str, answer: fleet_pb2.ListPodsResponse) -> dict[str, str]:
        """Pod -> the replica that applies its events."""
        return {pod.pod: rank.owner or name for pod in answer.pods for rank in pod.ranks}

    def publish(self) -> None:
        for number, (engine, publisher) in enumerate(
            zip(self.engines, self.publishers, strict=True)
        ):
            for frame in engine.frames[self.sent[number] :]:
                publisher.send(frame)
            self.sent[number] = len(engine.frames)

    async def agreed(self, state: int = TRUST_STATE_EXACT) -> None:
        """Wait until every replica has applied everything, and says so."""
        want = {(e.name, 0): len(e.frames) - 1 for e in self.engines if e.frames}
        for service in self.replicas.values():
            await service.until(
                lambda pods: all(
                    worker in pods
                    and pods[worker].HasField("last_sequence")
                    and pods[worker].last_sequence == last
                    and pods[worker].trust_state == state
                    for worker, last in want.items()
                )
            )

    async def check(self, prompts: list[Prompt]) -> int:
        """Every replica scores every prompt as the engines hold it; how many were held."""
        found = 0
        for service in self.replicas.values():
            stub = scoring_pb2_grpc.ScoringServiceStub(service.channel)
            for prompt in prompts:
                request = scoring_pb2.ScoreRequest(
                    model=MODEL,
                    lora_name=prompt.lora_name or "",
                    cache_salt=prompt.cache_salt or "",
                    pods=[engine.name for engine in self.engines],
                )
                request.prompt.token_ids.ids.extend(prompt.tokens)
                answer = await stub.Score(request)
                assert not answer.unknown_pods
                for engine, score in zip(self.engines, answer.pods, strict=True):
                    assert score.matched_blocks == engine.resident(prompt)
                    assert score.trust_state == TRUST_STATE_EXACT
                    found += score.matched_blocks > 0
        return found


def is_recovering(answer: fleet_pb2.ListPodsResponse) -> bool:
    states = [rank.trust_state for pod in answer.pods for rank in pod.ranks]
    return TRUST_STATE_RECOVERING in states


@asynccontextmanager
async def fleet(url: str, seed: int = 1) -> AsyncIterator[tuple[Fleet, list[Prompt]]]:
    """Three engines that have served a workload, of which nothing is published yet."""
    async with AsyncExitStack() as stack:
        engines, prompts = workload(seed, 8, 1, pods=3, requests=40, images=False, now=time.time)
        yield Fleet(url, stack, engines), prompts


@pytest.mark.parametrize("copy_blocks", [True, False])
def test_every_replica_says_the_same(redis: StoreProcess, copy_blocks: bool) -> None:
    async def main() -> None:
        async with fleet(redis.url) as (of, prompts):
            for name in "abc":
                await of.start(name, copy_blocks=copy_blocks)
            await of.connected()
            of.publish()
            await of.agreed()
            assert await of.check(prompts) > 30

    asyncio.run(main())


def test_a_replica_that_stops_is_succeeded_at_once(redis: StoreProcess) -> None:
    async def main() -> None:
        async with fleet(redis.url, seed=2) as (of, _):
            for name in "ab":
                await of.start(name)
            await of.connected()
            of.publish()
            await of.agreed()
            await of.stop("a")
            pods = await of.replicas["b"].pods()
            assert {rank.last_sequence for rank in pods.values()} == {
                len(engine.frames) - 1 for engine in of.engines
            }

    asyncio.run(main())
