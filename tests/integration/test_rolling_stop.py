"""One of three replicas is stopped under load: callers that try another one miss nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import grpc
from kvatlas.v1 import scoring_pb2_grpc
from support.deadlines import DEADLINE_SECONDS
from support.ports import free_port
from support.services.replica_process import ReplicaProcess
from support.services.replicated_fleet import MODEL, replicated_fleet, score_request

if TYPE_CHECKING:
    from pathlib import Path

    from support.engines.simulated import Prompt
    from support.services.replicated_fleet import ReplicatedFleet
    from support.stores.servers import StoreProcess

NAMES = ("a", "b", "c")
CALLERS = 16
CALLS = 300  # before the replica stops, and once it has ended

CONFIGURATION = """
[index]
block_size = 8
[grpc]
drain_seconds = 5.0
[store]
url = "{url}"
namespace = "{namespace}"
replica = "{name}"
"""


def configuration(fleet: ReplicatedFleet, name: str) -> str:
    text = CONFIGURATION.format(url=fleet.url, namespace=fleet.namespace, name=name)
    for publisher, engine in zip(fleet.publishers, fleet.engines, strict=True):
        text += f'\n[[sources]]\nendpoint = "{publisher.endpoint}"\n'
        text += f'pod = "{engine.name}"\nmodel = "{MODEL}"\n'
    return text


class Callers:
    """Callers that ask one replica after the other until one is available."""

    def __init__(self, replicas: list[ReplicaProcess], prompts: list[Prompt]) -> None:
        self._stubs = [scoring_pb2_grpc.ScoringServiceStub(r.channel) for r in replicas]
        self._requests = [score_request(prompt) for prompt in prompts]
        self.stopping = False
        self.answered = 0
        self.retried = 0
        self.failed: Counter[str] = Counter()
        self._called = asyncio.Event()

    async def until_answered(self, count: int) -> None:
        """Wait until so many calls were answered, or one has failed."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while self.answered < count and not self.failed:
                self._called.clear()
                await self._called.wait()

    async def run(self, number: int) -> None:
        while not self.stopping:
            number += 1
            await self._call(number)
            self._called.set()

    async def _call(self, number: int) -> None:
        for attempt in range(len(self._stubs)):
            stub = self._stubs[(number + attempt) % len(self._stubs)]
            try:
                await stub.Score(self._requests[number % len(self._requests)], timeout=30.0)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    self.retried += 1
                    continue
                self.failed[f"{error.code()} {error.details()}"] += 1
            else:
                self.answered += 1
            return
        self.failed["no replica is available"] += 1


async def test_no_request_fails_while_one_of_three_replicas_stops(
    redis: StoreProcess, tmp_path: Path
) -> None:
    async with replicated_fleet(redis.url) as (fleet, prompts), AsyncExitStack() as stack:
        replicas = []
        for name in NAMES:
            replica = ReplicaProcess(name, configuration(fleet, name), free_port(), tmp_path)
            stack.push_async_callback(replica.close)
            replica.start()
            replicas.append(replica)
        for replica in replicas:
            await replica.until_serving()
        for publisher in fleet.publishers:
            await publisher.until_subscribed()
        fleet.publish()
        last = {(engine.name, 0): len(engine.frames) - 1 for engine in fleet.engines}
        for replica in replicas:
            await replica.as_service().until(
                lambda ranks: all(
                    worker in ranks and ranks[worker].last_sequence == number
                    for worker, number in last.items()
                )
            )
        callers = Callers(replicas, prompts)
        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                group.create_task(callers.run(number))
            await callers.until_answered(CALLS)
            await replicas[0].terminate()
            await callers.until_answered(callers.answered + CALLS)
            callers.stopping = True
        assert not callers.failed
        assert callers.retried  # it was asked after it had ended
