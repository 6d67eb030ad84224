"""Pods that come, change and go, as a file, a name or somebody who registers them says."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from kvatlas.v1.trust_pb2 import TRUST_STATE_EXACT, TRUST_STATE_STALE
from support.engines.model_server import ModelServer, block_stored, model_server
from support.engines.pods_file import PodsFile
from support.services.one_pod import TOKENS, score, score_request
from support.services.replicated_fleet import ReplicatedFleet
from support.services.running import RunningService, local_configuration, running_service

from indexer import Worker
from service.replication import SharedReplica
from service.replication.handover import SourceAssignment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.stores.servers import StoreProcess


@pytest.fixture
async def servers() -> AsyncIterator[list[ModelServer]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(model_server()) for _ in range(3)]


@pytest.fixture
def file(tmp_path: Path) -> PodsFile:
    return PodsFile(tmp_path / "pods.json")


@asynccontextmanager
async def service_of(file: PodsFile, **settings: Any) -> AsyncIterator[RunningService]:
    """A service that reads the file."""
    discovery = {"file": str(file.path), **settings.pop("discovery", {})}
    async with running_service(local_configuration(discovery=discovery, **settings)) as service:
        yield service


async def publish_prompt(service: RunningService, server: ModelServer) -> None:
    await server.ranks[0].publisher.until_subscribed()
    sequence = server.ranks[0].publish(block_stored(TOKENS))
    await service.until_applied({(server.pod, 0): sequence})


def source_of(server: ModelServer) -> dict[str, str]:
    """The first rank of a pod as the configuration names it."""
    endpoint = server.ranks[0].publisher.endpoint
    return {"endpoint": endpoint, "pod": server.pod, "model": "sim/model"}


def is_asked(service: RunningService, server: ModelServer) -> bool:
    """Whether a pod was discovered, and has said where it publishes."""
    state = service.application.fleet.states.get(server.pod)
    return state is not None and state.facts is not None


async def nothing(_: object) -> None:
    pass


async def matched(service: RunningService) -> dict[str, int]:
    answer = await score(service, score_request(TOKENS))
    return {pod.pod: pod.matched_blocks for pod in answer.pods}


async def test_pods_come_and_go_as_the_file_says(
    file: PodsFile, servers: list[ModelServer]
) -> None:
    one, two, three = servers
    file.write(one.url, two.url)
    async with service_of(file) as service:
        for server in (one, two):
            await publish_prompt(service, server)
        assert await matched(service) == {one.pod: 4, two.pod: 4}
        file.write(two.url, three.url)
        await service.until(lambda pods: (one.pod, 0) not in pods)
        await publish_prompt(service, three)
        assert await matched(service) == {two.pod: 4, three.pod: 4}
        assert set(service.application.fleet.states) == {two.pod, three.pod}
        # A pod that comes back is learned anew.
        file.write(one.url)
        await service.until(
            lambda pods: (
                set(pods) == {(one.pod, 0)} and pods[one.pod, 0].trust_state == TRUST_STATE_EXACT
            )
        )
        assert await matched(service) == {one.pod: 4}


async def test_an_idle_pod_is_never_forgotten_but_one_that_nobody_discovers_is(
    file: PodsFile, servers: list[ModelServer]
) -> None:
    one, two, _ = servers
    file.write(one.url)
    events = {"departed_seconds": 1.0, "poll_seconds": 60}
    async with service_of(file, sources=[source_of(two)], events=events) as service:
        for server in (one, two):
            await publish_prompt(service, server)
        for server in (one, two):
            await server.end_engine()
        await service.until(lambda pods: (two.pod, 0) not in pods)
        await service.until(lambda pods: pods[one.pod, 0].silent_seconds > 1.5)
        assert await matched(service) == {one.pod: 4}


@pytest.mark.parametrize("is_configured", [False, True])
async def test_a_pod_that_is_not_ready_is_stale_until_it_is(
    file: PodsFile, servers: list[ModelServer], is_configured: bool
) -> None:
    one = servers[0]
    file.write(one.url)
    async with service_of(file, sources=[source_of(one)] if is_configured else []) as service:
        await publish_prompt(service, one)
        await service.until(lambda _: is_asked(service, one))
        file.write({"url": one.url, "ready": False})
        await service.until(lambda pods: pods[one.pod, 0].trust_reason == "not_ready")
        answer = await score(service, score_request(TOKENS))
        assert [pod.trust_state for pod in answer.pods] == [TRUST_STATE_STALE]
        assert [pod.matched_blocks for pod in answer.pods] == [4]
        file.write({"url": one.url, "ready": True})
        await service.until(lambda pods: pods[one.pod, 0].trust_state == TRUST_STATE_EXACT)
        assert await matched(service) == {one.pod: 4}
        file.write({"url": one.url, "ready": False})
        await service.until(lambda pods: pods[one.pod, 0].trust_reason == "not_ready")
        file.write()
        await service.until(lambda pods: not pods)


async def test_an_idle_pod_is_kept_also_where_its_source_is_configured(
    file: PodsFile, servers: list[ModelServer]
) -> None:
    one = servers[0]
    file.write(one.url)
    events = {"departed_seconds": 1.0, "poll_seconds": 60}
    async with service_of(file, sources=[source_of(one)], events=events) as service:
        await publish_prompt(service, one)
        await service.until(lambda _: is_asked(service, one))
        await one.end_engine()
        await service.until(lambda pods: pods[one.pod, 0].silent_seconds > 1.5)
        assert await matched(service) == {one.pod: 4}
        file.write()
        await service.until(lambda pods: not pods)


async def test_a_broken_file_changes_nothing(file: PodsFile, servers: list[ModelServer]) -> None:
    one, two, _ = servers
    file.write(one.url)
    async with service_of(file) as service:
        await publish_prompt(service, one)
        for content in ("{", '{"pods": 3}', '{"pods": ["ftp://x"]}', "\0", "[]"):
            file.path.write_text(content)
        file.path.unlink()
        file.write({"url": two.url, "colour": "red"})
        file.write(one.url, two.url)
        await publish_prompt(service, two)
        assert await matched(service) == {one.pod: 4, two.pod: 4}


async def test_the_file_says_what_the_engine_need_not(
    file: PodsFile, servers: list[ModelServer]
) -> None:
    file.write({"url": servers[0].url, "model": "named/so", "roles": ["prefill"], "node": "n1"})
    async with service_of(file) as service:
        state = service.application.fleet.states[servers[0].pod]
        assert [source.model for source in state.sources.values()] == ["named/so"]
        assert (state.pod.roles, state.pod.node) == (frozenset({"prefill"}), "n1")
        assert [finding.kind for finding in state.findings] == ["models_differ"]


async def test_replicas_share_what_they_discover(
    file: PodsFile, servers: list[ModelServer], redis: StoreProcess
) -> None:
    file.write(*(server.url for server in servers))
    async with AsyncExitStack() as stack:
        fleet = ReplicatedFleet(redis.url, stack, [])
        discovery = {"file": str(file.path)}
        replicas = [
            await stack.enter_async_context(
                running_service(
                    local_configuration(
                        **{**fleet.settings(name), "sources": [], "discovery": discovery},
                    )
                )
            )
            for name in ("a", "b")
        ]
        for server in servers:
            await server.ranks[0].publisher.until_subscribed()
            server.ranks[0].publish(block_stored(TOKENS))
        ranks = {(server.pod, 0) for server in servers}
        for replica in replicas:
            await replica.until(
                lambda pods: (
                    set(pods) == ranks
                    and all(rank.trust_state == TRUST_STATE_EXACT for rank in pods.values())
                    and all(rank.blocks_by_tier["gpu"] for rank in pods.values())
                )
            )
        file.write(servers[1].url)
        for replica in replicas:
            await replica.until(lambda pods: set(pods) == {(servers[1].pod, 0)})


@pytest.mark.parametrize("is_taken", [False, True])
async def test_a_gone_pod_is_forgotten_although_it_was_about_to_change_hands(
    file: PodsFile,
    servers: list[ModelServer],
    redis: StoreProcess,
    monkeypatch: pytest.MonkeyPatch,
    is_taken: bool,
) -> None:
    """Its last owner has released it, and the next one, if any, has written nothing of it yet."""
    one = servers[0]
    file.write(one.url)
    async with AsyncExitStack() as stack:
        fleet = ReplicatedFleet(redis.url, stack, [])
        discovery = {"file": str(file.path)}
        settings = {**fleet.settings("a"), "sources": [], "discovery": discovery}
        service = await stack.enter_async_context(running_service(local_configuration(**settings)))
        await publish_prompt(service, one)
        replica, worker = service.application.replica, Worker(one.pod, 0)
        assert isinstance(replica, SharedReplica)
        monkeypatch.setattr(SourceAssignment, "assign_sources", nothing)
        router = service.application.listener.router
        assert await replica.ownership.release(worker, partial(router.release, worker))
        if is_taken:
            await replica.store.acquire(worker, "sim/model", "dead", (), fresh=False)
        file.write()
        await service.until(lambda pods: not pods)
