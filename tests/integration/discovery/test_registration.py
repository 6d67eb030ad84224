"""Pods that are registered at the administration, by calls and by commands."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import grpc
import pytest
from kvatlas.v1 import discovery_pb2, discovery_pb2_grpc
from support.engines.model_server import ModelServer, block_stored, model_server
from support.services.one_pod import TOKENS
from support.services.replicated_fleet import ReplicatedFleet
from support.services.running import RunningService, local_configuration, running_service

from service.cli.main import main

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.stores.servers import StoreProcess

REGISTERING = {"registration": True}


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with model_server() as server:
        yield server


@pytest.fixture
async def service() -> AsyncIterator[RunningService]:
    async with running_service(local_configuration(discovery=REGISTERING)) as service:
        yield service


def stub(service: RunningService) -> discovery_pb2_grpc.DiscoveryServiceStub:
    return discovery_pb2_grpc.DiscoveryServiceStub(service.admin)


async def until_listed(service: RunningService, pods: set[str]) -> None:
    await service.until(lambda found: {pod for pod, _ in found} == pods)


async def test_a_registered_pod_is_listened_to_until_it_is_unregistered(
    service: RunningService, server: ModelServer
) -> None:
    request = discovery_pb2.RegisterPodRequest(url=server.url, roles=["decode"], node="n1")
    answer = await stub(service).RegisterPod(request)
    assert answer.pod == server.pod
    await server.ranks[0].publisher.until_subscribed()
    sequence = server.ranks[0].publish(block_stored(TOKENS))
    await service.until_applied({(server.pod, 0): sequence})
    listed = await stub(service).ListDiscoveredPods(discovery_pb2.ListDiscoveredPodsRequest())
    (pod,) = listed.pods
    assert (pod.pod, pod.ready, pod.node, list(pod.roles)) == (server.pod, True, "n1", ["decode"])
    assert list(pod.discovered_by) == ["registered"]
    assert (pod.engine.engine, pod.engine.version, pod.engine.block_size) == ("vllm", "0.32.0", 16)
    assert pod.engine.publishers[0].endpoint == f"tcp://*:{server.ranks[0].port}"
    await stub(service).UnregisterPod(discovery_pb2.UnregisterPodRequest(pod=server.pod))
    await until_listed(service, set())


async def test_a_registration_ends_with_its_time(
    service: RunningService, server: ModelServer
) -> None:
    request = discovery_pb2.RegisterPodRequest(url=server.url, ttl_seconds=1.5)
    await stub(service).RegisterPod(request)
    await until_listed(service, {server.pod})
    await until_listed(service, set())


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (discovery_pb2.RegisterPodRequest(), "http://host:port"),
        (discovery_pb2.RegisterPodRequest(url="http://h"), "no port"),
        (discovery_pb2.RegisterPodRequest(url="http://h:1", ttl_seconds=0), "ttl_seconds"),
        (discovery_pb2.RegisterPodRequest(url="http://h:1", ttl_seconds=float("nan")), "ttl"),
        (discovery_pb2.RegisterPodRequest(url="http://h:1", roles=["x"] * 17), "roles"),
        (discovery_pb2.RegisterPodRequest(url="http://h:1", node="\n"), "short text"),
        (discovery_pb2.RegisterPodRequest(url="http://h:1", model="m" * 600), "short text"),
    ],
)
async def test_what_is_no_pod_is_refused(
    service: RunningService, request_: discovery_pb2.RegisterPodRequest, words: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=words) as raised:
        await stub(service).RegisterPod(request_)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_registering_is_refused_unless_it_is_allowed() -> None:
    async with running_service(local_configuration()) as service:
        for call in (
            stub(service).RegisterPod(discovery_pb2.RegisterPodRequest(url="http://h:1")),
            stub(service).UnregisterPod(discovery_pb2.UnregisterPodRequest(pod="h:1")),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match=r"discovery\.registration") as raised:
                await call
            assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_no_more_pods_are_registered_than_are_allowed() -> None:
    settings = {"discovery": {**REGISTERING, "timeout_seconds": 0.1}, "events": {"pods": 2}}
    async with running_service(local_configuration(**settings)) as service:
        for name in ("a", "b", "a"):
            url = f"http://{name}.invalid:1"
            await stub(service).RegisterPod(discovery_pb2.RegisterPodRequest(url=url))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub(service).RegisterPod(discovery_pb2.RegisterPodRequest(url="http://c:1"))
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub(service).UnregisterPod(discovery_pb2.UnregisterPodRequest(pod="c:1"))
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_replicas_share_what_is_registered_at_one(
    server: ModelServer, redis: StoreProcess
) -> None:
    async with AsyncExitStack() as stack:
        fleet = ReplicatedFleet(redis.url, stack, [])
        settings = [fleet.settings(name) for name in ("a", "b")]
        one, two = [
            await stack.enter_async_context(
                running_service(
                    local_configuration(**{**each, "sources": [], "discovery": REGISTERING})
                )
            )
            for each in settings
        ]
        await stub(one).RegisterPod(discovery_pb2.RegisterPodRequest(url=server.url))
        await server.ranks[0].publisher.until_subscribed()
        server.ranks[0].publish(block_stored(TOKENS))
        for replica in (one, two):
            await replica.until(
                lambda pods: (
                    set(pods) == {(server.pod, 0)}
                    and pods[server.pod, 0].blocks_by_tier["gpu"] == 8
                )
            )
        await stub(two).UnregisterPod(discovery_pb2.UnregisterPodRequest(pod=server.pod))
        for replica in (one, two):
            await until_listed(replica, set())


async def test_the_commands_register_list_and_unregister(
    service: RunningService, server: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    address = service.application.admin_addresses[0]

    async def run(*words: str) -> str:
        assert await asyncio.to_thread(main, ["pods", *words, "--server", address]) == 0
        lines = capsys.readouterr().out.splitlines()
        return "\n".join(line for line in lines if not line.startswith("20"))  # the log's

    shown = await run("register", server.url, "--role", "prefill", "--ttl", "3600")
    assert shown == f"{server.pod} is registered"
    await until_listed(service, {server.pod})
    shown = await run("discovered")
    row = [server.pod, "registered", "yes", "vllm", "0.32.0", "sim/model", "16", "1", "prefill"]
    assert row in [line.split() for line in shown.splitlines()]
    assert "registered: 1 pods" in shown
    listed = json.loads(await run("discovered", "--json"))
    assert listed["pods"][0]["roles"] == ["prefill"]
    assert await run("unregister", server.pod, "--json") == "{}"
    await until_listed(service, set())
    assert "registered: 0 pods" in await run("discovered")


async def test_an_engine_that_names_another_s_socket_is_listened_to_once_that_is_free(
    service: RunningService, server: ModelServer
) -> None:
    async with model_server() as other:
        other.answers["/kv_event_sources"] = server.answers["/kv_event_sources"]
        await stub(service).RegisterPod(discovery_pb2.RegisterPodRequest(url=server.url))
        await until_listed(service, {server.pod})
        await stub(service).RegisterPod(discovery_pb2.RegisterPodRequest(url=other.url))
        states = service.application.fleet.states
        await service.until(lambda _: other.pod in states and states[other.pod].asked > 0)
        assert f"as that of {server.pod}" in states[other.pod].failure
        assert {pod for pod, _ in await service.pods()} == {server.pod}
        await stub(service).UnregisterPod(discovery_pb2.UnregisterPodRequest(pod=server.pod))
        await until_listed(service, {other.pod})
