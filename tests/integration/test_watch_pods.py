"""FleetService/WatchPods: the states of ranks as they change."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import zmq
from grpc_reflection.v1alpha import reflection_pb2
from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc, trust_pb2
from support.deadlines import DEADLINE_SECONDS
from support.engines.publisher import Publisher
from support.refusals import refusal
from support.services.one_pod import MODEL, POD, TOKENS, Pods, block_stored, frame
from support.services.replicated_fleet import replicated_fleet
from support.services.running import local_configuration, running_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.services.running import RunningService
    from support.stores.servers import StoreProcess

OTHER = "10.0.0.2:8000"
Seen = tuple[str, str, str, str]


class Watch:
    """A call of WatchPods."""

    def __init__(self, service: RunningService, **request: Any) -> None:
        stub = fleet_pb2_grpc.FleetServiceStub(service.admin)
        self.call = stub.WatchPods(fleet_pb2.WatchPodsRequest(**request))

    async def next(self) -> fleet_pb2.WatchPodsResponse:
        async with asyncio.timeout(DEADLINE_SECONDS):
            message = await self.call.read()
        assert isinstance(message, fleet_pb2.WatchPodsResponse), message
        return message

    async def seen(self, count: int) -> list[Seen]:
        """The next changes: what has happened to which pod, and its trust after it."""
        return [_seen(await self.next()) for _ in range(count)]

    async def until(self, change: str, reason: str = "") -> fleet_pb2.WatchPodsResponse:
        while True:
            message = await self.next()
            if _seen(message)[0] == change and message.trust_reason == reason:
                return message


def _seen(message: fleet_pb2.WatchPodsResponse) -> Seen:
    change = fleet_pb2.PodChange.Name(message.change).removeprefix("POD_CHANGE_")
    state = trust_pb2.TrustState.Name(message.trust_state).removeprefix("TRUST_STATE_")
    return change, message.pod, state, message.trust_reason


@pytest.fixture(params=["http2", "grpcio"])
async def watched(
    request: pytest.FixtureRequest,
) -> AsyncIterator[tuple[RunningService, Publisher, Pods]]:
    transport = {"listen": ["127.0.0.1:0"], "transport": request.param, "drain_seconds": 0.1}
    async with _watched(grpc=transport) as found:
        yield found


@asynccontextmanager
async def _watched(**settings: Any) -> AsyncIterator[tuple[RunningService, Publisher, Pods]]:
    sources = [{"endpoint": "tcp://127.0.0.1:0", "bind": True}]
    configuration = local_configuration(**{"sources": sources, **settings})
    with zmq.Context() as context:
        async with running_service(configuration) as service:
            publisher = Publisher(context, connect=service.application.endpoints[0])
            await publisher.until_subscribed()
            try:
                yield service, publisher, Pods(service, publisher)
            finally:
                publisher.close()


async def test_the_life_of_a_pod_is_told(
    watched: tuple[RunningService, Publisher, Pods],
) -> None:
    service, publisher, pods = watched
    watch = Watch(service)
    assert await watch.seen(1) == [("LIST_COMPLETE", "", "UNSPECIFIED", "")]
    await pods.publish(block_stored(TOKENS))
    joined = await watch.next()
    assert _seen(joined) == ("APPEARED", POD, "EXACT", "")
    assert (joined.model, joined.rank, joined.HasField("last_sequence")) == (MODEL, 0, True)
    publisher.send(frame(5, block_stored(TOKENS, first_hash=50)))
    gap = await watch.until("TRUST_CHANGED", "frames_lost")
    assert gap.trust_state == trust_pb2.TRUST_STATE_DEGRADED
    publisher.close()
    lost = await watch.until("TRUST_CHANGED", "disconnected")
    assert lost.trust_state == trust_pb2.TRUST_STATE_STALE
    stub = fleet_pb2_grpc.FleetServiceStub(service.admin)
    await stub.ForgetPod(fleet_pb2.ForgetPodRequest(pod=POD))
    gone = await watch.next()
    assert _seen(gone) == ("DISAPPEARED", POD, "STALE", "disconnected")


async def test_a_restart_is_told_with_its_number() -> None:
    async with _watched() as (service, publisher, pods):
        await pods.publish(block_stored(TOKENS))
        watch = Watch(service)
        assert (await watch.seen(2))[0] == ("LISTED", POD, "EXACT", "")
        for sequence in range(1, 3):
            await pods.publish(block_stored(TOKENS, first_hash=10 * sequence))
        publisher.send(frame(0, block_stored(TOKENS, first_hash=90)))
        message = await watch.next()
        while _seen(message)[0] != "RESTARTED":
            message = await watch.next()
        assert message.restarts == 1


async def test_first_comes_what_there_is_then_the_end_of_the_list(
    watched: tuple[RunningService, Publisher, Pods],
) -> None:
    service, _, pods = watched
    await pods.publish(block_stored(TOKENS))
    await pods.publish(block_stored(TOKENS), pod=OTHER)
    listed = await Watch(service).seen(3)
    assert [(change, pod) for change, pod, _, _ in listed] == [
        ("LISTED", POD),
        ("LISTED", OTHER),
        ("LIST_COMPLETE", ""),
    ]


async def test_only_the_pods_and_the_model_that_were_asked_for_are_told() -> None:
    async with _watched() as (service, _, pods):
        await pods.publish(block_stored(TOKENS))
        by_pod, by_model = Watch(service, pods=[OTHER]), Watch(service, model="another")
        for watch in (by_pod, by_model):
            assert await watch.seen(1) == [("LIST_COMPLETE", "", "UNSPECIFIED", "")]
        await pods.publish(block_stored(TOKENS), pod="10.0.0.3:8000")
        await pods.publish(block_stored(TOKENS), pod="10.0.0.4:8000", model="another")
        await pods.publish(block_stored(TOKENS), pod=OTHER)
        assert (await by_pod.seen(1))[0][1] == OTHER
        assert (await by_model.seen(1))[0][1] == "10.0.0.4:8000"


async def test_more_watchers_than_are_allowed_are_refused_and_one_that_leaves_makes_room() -> None:
    async with _watched() as (service, _, _):
        watches = [Watch(service) for _ in range(16)]
        for watch in watches:
            await watch.next()
        found = await refusal(Watch(service).call.read())
        assert (found.code, found.reason) == (
            *(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS"),
        )
        watches[0].call.cancel()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                try:
                    await Watch(service).call.read()
                    break
                except grpc.aio.AioRpcError as error:
                    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("transport", ["http2", "grpcio"])
async def test_a_watch_ends_with_unavailable_when_the_service_stops(transport: str) -> None:
    section = {"listen": ["127.0.0.1:0"], "transport": transport, "drain_seconds": 0.1}
    configuration = local_configuration(grpc=section)
    async with grpc.aio.insecure_channel("127.0.0.1:1"):
        async with running_service(configuration) as service:
            channel = grpc.aio.insecure_channel(service.application.admin_addresses[0])
            stub = fleet_pb2_grpc.FleetServiceStub(channel)
            call = stub.WatchPods(fleet_pb2.WatchPodsRequest())
            await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await _read_to_the_end(call)
        assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
        await channel.close()


async def test_pods_of_a_replica_that_stops_are_told_to_have_another_owner(
    redis: StoreProcess,
) -> None:
    async with replicated_fleet(redis.url, seed=2) as (fleet, _):
        for name in "ab":
            await fleet.start(name)
        await fleet.until_connected()
        fleet.publish()
        await fleet.until_agreed()
        theirs = {pod for pod, owner in fleet.expected_owners().items() if owner == "a"}
        watch = Watch(fleet.replicas["b"])
        listed = [await watch.next() for _ in range(len(fleet.engines) + 1)]
        assert {each.pod for each in listed if each.owner == "a"} == theirs
        await fleet.stop("a")
        owners: dict[str, str] = {}
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not all(owners.get(pod, "a") == "" for pod in theirs):
                change = await watch.next()
                owners[change.pod] = change.owner


async def _read_to_the_end(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_reflection_names_the_services_of_each_listener() -> None:
    async with _watched() as (service, _, _):
        names = []
        for channel in (service.channel, service.admin):
            ask = channel.stream_stream(
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            question = reflection_pb2.ServerReflectionRequest(list_services="")
            (answer,) = [each async for each in ask(iter([question]))]
            names.append({each.name for each in answer.list_services_response.service})
        assert all("kvatlas.v1.ExplainService" in each for each in names)
        assert "kvatlas.v1.FleetService" in names[1] - names[0]
