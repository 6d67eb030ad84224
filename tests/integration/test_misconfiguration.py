"""What ListPods says of a fleet that is set up wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import msgpack
import zmq
import zmq.asyncio
from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc, scoring_pb2, scoring_pb2_grpc

from service.application import Application
from service.configuration import load

Publish = Callable[[str, int, int, int | None, int], None]


class Fixture:
    """A running service, with a publisher that speaks for any pod."""

    def __init__(
        self, application: Application, channel: grpc.aio.Channel, socket: zmq.Socket[bytes]
    ):
        self.application = application
        self.fleet = fleet_pb2_grpc.FleetServiceStub(channel)
        self.scoring = scoring_pb2_grpc.ScoringServiceStub(channel)
        self._socket = socket
        self._sent = 0

    def publish(self, pod: str, sequence: int, blocks: int, parent: int | None, size: int) -> None:
        event = {
            "type": "BlockStored",
            "block_hashes": list(range(1, blocks + 1)),
            "parent_block_hash": parent,
            "token_ids": list(range(blocks * size)),
            "block_size": size,
            "medium": "GPU",
        }
        payload = msgpack.packb([float(sequence), [event], 0])
        self._socket.send_multipart([f"kv@{pod}@m".encode(), sequence.to_bytes(8, "big"), payload])
        self._sent += 1

    async def warnings(self) -> dict[str, fleet_pb2.FleetWarning]:
        async with asyncio.timeout(10):
            while self.application.ingest.frames < self._sent:
                await self.fleet.ListPods(fleet_pb2.ListPodsRequest())
        answer = await self.fleet.ListPods(fleet_pb2.ListPodsRequest())
        return {warning.kind: warning for warning in answer.warnings}


@asynccontextmanager
async def running() -> AsyncIterator[Fixture]:
    configuration = load(
        None,
        {
            "grpc": {"listen": ["127.0.0.1:0"]},
            "metrics": {"listen": ""},
            "sources": [{"endpoint": "tcp://127.0.0.1:*", "bind": True}],
        },
    )
    async with (
        Application(configuration) as application,
        grpc.aio.insecure_channel(application.addresses[0]) as channel,
    ):
        with zmq.asyncio.Context() as context, context.socket(zmq.XPUB) as subscriptions:
            subscriptions.connect(application.endpoints[0])
            assert await subscriptions.poll(10_000)
            yield Fixture(application, channel, zmq.Socket(subscriptions))


def test_a_healthy_fleet_gives_no_warning() -> None:
    async def main() -> None:
        async with running() as fixture:
            for pod in ("a:1", "b:1"):
                fixture.publish(pod, 0, 40, None, 16)
            assert await fixture.warnings() == {}

    asyncio.run(main())


def test_different_block_sizes_of_a_model_are_told() -> None:
    async def main() -> None:
        async with running() as fixture:
            fixture.publish("a:1", 0, 2, None, 16)
            fixture.publish("b:1", 0, 2, None, 32)
            warning = (await fixture.warnings())["block_sizes_differ"]
            assert list(warning.pods) == ["a:1", "b:1"]
            assert warning.model == "m"
            assert "16 tokens on a:1; 32 tokens on b:1" in warning.detail

    asyncio.run(main())


def test_events_that_never_resolve_are_told_with_the_likely_cause() -> None:
    async def main() -> None:
        async with running() as fixture:
            fixture.publish("late:1", 5, 40, 999, 16)
            fixture.publish("odd:1", 0, 40, None, 24)
            await fixture.warnings()
            found = await fixture.fleet.ListPods(fleet_pb2.ListPodsRequest(model="m"))
            details = {
                w.pods[0]: w.detail for w in found.warnings if w.kind == "events_never_resolve"
            }
            assert "replay socket" in details["late:1"]
            assert "neither a multiple nor a fraction" in details["odd:1"]
            other = await fixture.fleet.ListPods(fleet_pb2.ListPodsRequest(model="other"))
            assert not other.warnings
            fixture.publish("late:1", 6, 1, None, 16)
            remaining = await fixture.fleet.ListPods(fleet_pb2.ListPodsRequest())
            async with asyncio.timeout(10):
                while any(
                    "late:1" in w.pods and w.kind == "events_never_resolve"
                    for w in remaining.warnings
                ):
                    remaining = await fixture.fleet.ListPods(fleet_pb2.ListPodsRequest())

    asyncio.run(main())


def test_prompts_that_never_match_are_told_until_one_does() -> None:
    async def main() -> None:
        async with running() as fixture:
            fixture.publish("a:1", 0, 2, None, 16)
            await fixture.warnings()

            def request(first: int) -> scoring_pb2.ScoreRequest:
                ids = scoring_pb2.TokenIds(ids=range(first, first + 32))
                return scoring_pb2.ScoreRequest(model="m", prompt=scoring_pb2.Prompt(token_ids=ids))

            for number in range(499):
                await fixture.scoring.Score(request(1000 + number))
            assert await fixture.warnings() == {}
            await fixture.scoring.Score(request(5000))
            assert "another tokenizer" in (await fixture.warnings())["scores_never_match"].detail
            assert (await fixture.scoring.Score(request(0))).pods[0].matched_blocks == 2
            assert await fixture.warnings() == {}

    asyncio.run(main())
