"""Warnings about fleets that are set up wrong."""

from __future__ import annotations

import asyncio
import random
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgpack
import zmq
from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc, scoring_pb2, scoring_pb2_grpc
from support.deadlines import DEADLINE_SECONDS
from support.engines.faulty import Faults, FaultyEngine
from support.engines.publisher import Publisher
from support.engines.simulated import Prompt, SimulatedEngine
from support.ports import free_port
from support.services.running import RunningService, local_configuration, running_service

HOST = "127.0.0.2"


class ServiceWithPods:
    """A running service, and a publisher that publishes as any pod."""

    def __init__(self, service: RunningService, publisher: Publisher) -> None:
        self.service = service
        self.application = service.application
        self.stub = fleet_pb2_grpc.FleetServiceStub(service.admin)
        self.scoring = scoring_pb2_grpc.ScoringServiceStub(service.channel)
        self._publisher = publisher
        self._sent = 0

    def publish(
        self, pod: str, sequence: int, blocks: int, parent: int | None, size: int, **fields: int
    ) -> None:
        event = {
            "type": "BlockStored",
            "block_hashes": list(range(1, blocks + 1)),
            "parent_block_hash": parent,
            "token_ids": list(range(blocks * size)),
            "block_size": size,
            "medium": "GPU",
            **fields,
        }
        payload = msgpack.packb([float(sequence), [event], 0])
        self._publisher.send([f"kv@{pod}@m".encode(), sequence.to_bytes(8, "big"), payload])
        self._sent += 1

    async def list(self, model: str = "") -> list[fleet_pb2.FleetWarning]:
        answer = await self.stub.ListPods(fleet_pb2.ListPodsRequest(model=model))
        return list(answer.warnings)

    async def warnings(self) -> dict[str, fleet_pb2.FleetWarning]:
        """The warnings by kind, once everything published has arrived."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while self.application.listener.router.frames < self._sent:
                await self.list()
        return {warning.kind: warning for warning in await self.list()}

    async def until_warned(self, kind: str) -> fleet_pb2.FleetWarning:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                found = await self.warnings()
                if kind in found:
                    return found[kind]


@asynccontextmanager
async def service_with_pods(replay: str = "") -> AsyncIterator[ServiceWithPods]:
    source = {"endpoint": "tcp://127.0.0.1:*", "bind": True, "replay": replay}
    with zmq.Context() as context:
        async with running_service(local_configuration(sources=[source])) as service:
            publisher = Publisher(context, service.application.endpoints[0])
            await publisher.until_subscribed()
            yield ServiceWithPods(service, publisher)
            publisher.close()


async def test_a_healthy_fleet_gives_no_warning() -> None:
    async with service_with_pods() as fleet:
        for pod in ("a:1", "b:1"):
            fleet.publish(pod, 0, 40, None, 16)
        assert await fleet.warnings() == {}


async def test_different_block_sizes_of_a_model_are_a_warning() -> None:
    async with service_with_pods() as fleet:
        fleet.publish("a:1", 0, 2, None, 16)
        fleet.publish("b:1", 0, 2, None, 32)
        warning = (await fleet.warnings())["block_sizes_differ"]
        assert list(warning.pods) == ["a:1", "b:1"]
        assert warning.model == "m"
        assert "16 tokens on a:1; 32 tokens on b:1" in warning.detail


async def test_events_that_never_resolve_are_a_warning_with_the_likely_cause() -> None:
    async with service_with_pods() as fleet:
        fleet.publish("late:1", 5, 40, 999, 16)
        fleet.publish("odd:1", 0, 40, None, 16, lora_id=7)
        await fleet.warnings()
        found = await fleet.list("m")
        details = {w.pods[0]: w.detail for w in found if w.kind == "events_never_resolve"}
        assert "replay socket" in details["late:1"]
        assert "LoRA adapters by number" in details["odd:1"]
        assert await fleet.list("other") == []
        fleet.publish("late:1", 6, 1, None, 16)
        await fleet.warnings()
        remaining = [w.pods for w in await fleet.list() if w.kind == "events_never_resolve"]
        assert remaining == [["odd:1"]]


async def test_prompts_that_never_match_are_a_warning_until_one_does() -> None:
    async with service_with_pods() as fleet:
        fleet.publish("a:1", 0, 2, None, 16)
        await fleet.warnings()

        def request(first: int) -> scoring_pb2.ScoreRequest:
            ids = scoring_pb2.TokenIds(ids=range(first, first + 32))
            return scoring_pb2.ScoreRequest(model="m", prompt=scoring_pb2.Prompt(token_ids=ids))

        for number in range(499):
            await fleet.scoring.Score(request(1000 + number))
        assert await fleet.warnings() == {}
        await fleet.scoring.Score(request(5000))
        assert "another tokenizer" in (await fleet.warnings())["scores_never_match"].detail
        assert (await fleet.scoring.Score(request(0))).pods[0].matched_blocks == 2
        assert await fleet.warnings() == {}


async def test_a_replay_socket_of_another_pod_is_a_warning() -> None:
    with zmq.Context() as context:
        replay_port = free_port()
        other = FaultyEngine(
            context,
            SimulatedEngine("other:1", "m", 16, 100, random.Random(1)),
            f"tcp://127.0.0.1:{free_port()}",
            f"tcp://{HOST}:{replay_port}",
            Faults(replay="whole"),
            random.Random(2),
        )
        await other.start()
        other.engine.serve(Prompt(tuple(range(64))))
        other.publish()
        try:
            async with service_with_pods(f"tcp://{{host}}:{replay_port}") as fleet:
                fleet.publish(f"{HOST}:1", 5, 1, None, 16)
                warning = await fleet.until_warned("wrong_replay_socket")
                assert list(warning.pods) == [f"{HOST}:1"]
                assert f"tcp://{HOST}:{replay_port}" in warning.detail
                rank = (await fleet.service.pods())[f"{HOST}:1", 0]
                assert rank.replayed_frames == 0
        finally:
            await other.close()


async def test_a_metric_counts_misconfigurations() -> None:
    async with service_with_pods() as fleet:
        fleet.publish("a:1", 0, 2, None, 16)
        fleet.publish("b:1", 0, 2, None, 32)
        await fleet.warnings()
        url = f"http://127.0.0.1:{fleet.application.metrics_port}/metrics"
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())
        line = 'kvatlas_misconfigurations{kind="block_sizes_differ",model="m"} 1.0'
        assert line in page.splitlines()
