"""Several replicas of the service over one store, and the engines that they listen to."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import zmq
from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc, scoring_pb2, scoring_pb2_grpc
from kvatlas.v1.trust_pb2 import TRUST_STATE_EXACT, TRUST_STATE_RECOVERING

from store import rendezvous_owner
from support.deadlines import DEADLINE_SECONDS, stretched
from support.engines.publisher import Publisher
from support.engines.simulated import Prompt, SimulatedEngine
from support.engines.workload import served_workload
from support.services.running import RunningService, local_configuration, running_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MODEL = "sim/model"
_NAMESPACES = itertools.count()


def score_request(prompt: Prompt) -> scoring_pb2.ScoreRequest:
    """The request that asks about a prompt of the engines."""
    request = scoring_pb2.ScoreRequest(
        model=MODEL, lora_name=prompt.lora_name or "", cache_salt=prompt.cache_salt or ""
    )
    request.prompt.token_ids.ids.extend(prompt.tokens)
    return request


class ReplicatedFleet:
    """Engines that publish, and replicas of the service that listen to all of them."""

    def __init__(self, url: str, stack: AsyncExitStack, engines: list[SimulatedEngine]) -> None:
        self._stack = stack
        self.engines = engines
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        stack.callback(self.context.term)
        self.publishers = [Publisher(self.context) for _ in engines]
        for publisher in self.publishers:
            stack.callback(publisher.close)
        self.sent = [0] * len(engines)
        self.url = url
        self.lease_seconds = stretched(0.6)
        self.namespace = f"replicas{next(_NAMESPACES)}"
        self.replicas: dict[str, RunningService] = {}
        self._stacks: dict[str, AsyncExitStack] = {}

    def settings(self, name: str, block_size: int = 8, **more: Any) -> dict[str, Any]:
        sources = [
            {"endpoint": publisher.endpoint, "pod": engine.name, "model": MODEL}
            for publisher, engine in zip(self.publishers, self.engines, strict=True)
        ]
        store = {
            "url": self.url,
            "namespace": self.namespace,
            "replica": name,
            "lease_seconds": self.lease_seconds,
            **more,
        }
        return {"sources": sources, "index": {"block_size": block_size}, "store": store}

    async def start(self, name: str, **more: Any) -> RunningService:
        stack = await self._stack.enter_async_context(AsyncExitStack())
        service = await stack.enter_async_context(
            running_service(local_configuration(**self.settings(name, **more)))
        )
        self.replicas[name], self._stacks[name] = service, stack
        return service

    async def stop(self, name: str) -> None:
        del self.replicas[name]
        await self._stacks.pop(name).aclose()

    async def until_connected(self) -> None:
        """Wait until each engine has a subscriber and all replicas agree on the owners."""
        for publisher in self.publishers:
            await publisher.until_subscribed()
        names = sorted(self.replicas)
        want = self.expected_owners()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                answers = {name: await self.listed(name) for name in names}
                if all(
                    list(answer.shared_index.live_replicas) == names
                    and self.owners(name, answer) == want
                    and not is_recovering(answer)
                    for name, answer in answers.items()
                ):
                    return

    def expected_owners(self) -> dict[str, str]:
        """Pod -> the replica that is to own it."""
        names = sorted(self.replicas)
        return {
            engine.name: rendezvous_owner(publisher.endpoint, names) or ""
            for publisher, engine in zip(self.publishers, self.engines, strict=True)
        }

    async def until_exact(self, prompts: list[Prompt]) -> int:
        """Wait until every replica scores every prompt exactly; the number of matches.

        No score that is called exact may be wrong meanwhile.
        """
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                found, doubted = await self.ask(prompts)
                if not doubted:
                    return found

    async def listed(self, name: str) -> fleet_pb2.ListPodsResponse:
        stub = fleet_pb2_grpc.FleetServiceStub(self.replicas[name].admin)
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

    async def until_agreed(self, state: int = TRUST_STATE_EXACT) -> None:
        """Wait until every replica shows every frame as applied, in the trust state `state`."""
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
        """Assert that every replica scores every prompt exactly; the number of matches."""
        found, doubted = await self.ask(prompts)
        assert not doubted
        return found

    async def distrusted(self) -> dict[str, str]:
        """Pod -> its owner, where another replica distrusts the owner for its settings."""
        return {
            pod.pod: rank.owner
            for name in self.replicas
            for pod in (await self.listed(name)).pods
            for rank in pod.ranks
            if rank.trust_reason == "other_settings"
        }

    async def ask(self, prompts: list[Prompt]) -> tuple[int, int]:
        """Score all prompts at all replicas: the matches, and the scores that were not exact."""
        found = doubted = 0
        for service in self.replicas.values():
            stub = scoring_pb2_grpc.ScoringServiceStub(service.channel)
            for prompt in prompts:
                request = score_request(prompt)
                request.pods.extend(engine.name for engine in self.engines)
                answer = await stub.Score(request)
                assert not answer.unknown_pods
                for engine, score in zip(self.engines, answer.pods, strict=True):
                    exact = score.trust_state == TRUST_STATE_EXACT
                    assert not exact or score.matched_blocks == engine.resident(prompt)
                    found += score.matched_blocks > 0
                    doubted += not exact
        return found, doubted


def is_recovering(answer: fleet_pb2.ListPodsResponse) -> bool:
    """Whether any rank recovers."""
    states = [rank.trust_state for pod in answer.pods for rank in pod.ranks]
    return TRUST_STATE_RECOVERING in states


@asynccontextmanager
async def replicated_fleet(
    url: str, seed: int = 1
) -> AsyncIterator[tuple[ReplicatedFleet, list[Prompt]]]:
    """Three engines that have served a workload and published nothing yet, and its prompts."""
    async with AsyncExitStack() as stack:
        engines, prompts = served_workload(
            seed, 8, 1, pods=3, requests=40, images=False, now=time.time
        )
        yield ReplicatedFleet(url, stack, engines), prompts
