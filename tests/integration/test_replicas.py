"""Several replicas of the service over one store: the same pods and scores, whoever is asked."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import zmq
from grpc_health.v1 import health_pb2
from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc, scoring_pb2_grpc
from kvatlas.v1.trust_pb2 import TRUST_STATE_EXACT
from support.deadlines import DEADLINE_SECONDS, stretched
from support.engines.publisher import Publisher
from support.engines.workload import served_workload
from support.ports import free_port
from support.services.replica_process import ReplicaProcess
from support.services.replicated_fleet import (
    MODEL,
    replicated_fleet,
    score_request,
)
from support.services.running import local_configuration, running_service
from support.stores.proxy import CuttableProxy
from support.stores.servers import (
    StoreProcess,
    patient_address,
    server_program,
    store_process,
)

from indexer import Worker
from service.replication import SharedReplica
from service.replication import membership as membership_module
from service.replication.membership import Membership
from service.replication.store_failures import StoreFailures
from store import Server, Store, StoreError, rendezvous_owner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.mark.parametrize("copy_blocks", [True, False])
async def test_every_replica_answers_every_score_alike(
    redis: StoreProcess, copy_blocks: bool
) -> None:
    async with replicated_fleet(redis.url) as (fleet, prompts):
        for name in "abc":
            await fleet.start(name, copy_blocks=copy_blocks)
        await fleet.until_connected()
        fleet.publish()
        await fleet.until_agreed()
        assert await fleet.check(prompts) > 30


async def test_the_workers_of_a_replica_that_stops_are_taken_over_at_once(
    redis: StoreProcess,
) -> None:
    async with replicated_fleet(redis.url, seed=2) as (fleet, _):
        for name in "ab":
            await fleet.start(name)
        await fleet.until_connected()
        fleet.publish()
        await fleet.until_agreed()
        await fleet.stop("a")
        pods = await fleet.replicas["b"].pods()
        assert {rank.last_sequence for rank in pods.values()} == {
            len(engine.frames) - 1 for engine in fleet.engines
        }


@asynccontextmanager
async def own_store() -> AsyncIterator[StoreProcess]:
    """A store for one test, to be killed."""
    if server_program("valkey") is None:
        pytest.skip("there is no valkey-server on this machine")
    with store_process("valkey") as process:
        yield process


async def test_while_the_store_is_away_a_replica_answers_from_its_copy_and_says_so() -> None:
    async with own_store() as store, replicated_fleet(store.url, seed=3) as (fleet, prompts):
        limit = stretched(0.3)
        for name in "ab":
            await fleet.start(name, max_lag_seconds=limit, timeout_seconds=limit)
        await fleet.until_connected()
        fleet.publish()
        await fleet.until_agreed()
        store.kill()
        asked = (
            "a" if "b" in fleet.expected_owners().values() else "b"
        )  # who has somebody else's pods
        stub = scoring_pb2_grpc.ScoringServiceStub(fleet.replicas[asked].channel)
        request = score_request(prompts[0])
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                answer = await stub.Score(request, timeout=stretched(2.0))
                states = {score.pod: score.trust_reason for score in answer.pods}
                if "copy_behind" in states.values():
                    break
        assert answer.copy_behind_seconds > limit
        own = {pod for pod, owner in fleet.expected_owners().items() if owner == asked}
        engines = {engine.name: engine for engine in fleet.engines}
        assert {score.pod for score in answer.pods} == set(engines)
        for score in answer.pods:
            engine = engines[score.pod]
            assert score.matched_blocks == engine.resident(prompts[0])
            assert (score.trust_state == TRUST_STATE_EXACT) == (score.pod in own)
        await asyncio.to_thread(store.start)
        await fleet.until_exact(prompts)
        await fleet.until_agreed()
        # The owners may find only now that the store is empty, and write everything again.
        assert await fleet.until_exact(prompts) > 30


async def test_a_replica_that_was_killed_does_not_own_its_former_workers_after_a_restart(
    redis: StoreProcess, tmp_path: Path
) -> None:
    async with replicated_fleet(redis.url, seed=8) as (fleet, _):
        endpoint, pod = fleet.publishers[0].endpoint, fleet.engines[0].name
        names = map(str, itertools.count())
        other = next(name for name in names if rendezvous_owner(endpoint, ["a", name]) == name)
        text = f"""
                [[sources]]
                endpoint = "{endpoint}"
                pod = "{pod}"
                model = "{MODEL}"
                [store]
                url = "{redis.url}"
                namespace = "{fleet.namespace}"
                replica = "a"
                lease_seconds = 60
                """
        killed = ReplicaProcess("a", text, free_port(), tmp_path)
        try:
            killed.start()
            await killed.until_serving()
            await killed.as_service().until(lambda pods: (pod, 0) in pods)
            killed.kill()
            service = await fleet.start(other, lease_seconds=60)
            killed.start()
            await killed.until_serving()
            await service.until(
                lambda pods: (
                    (pod, 0) in pods and not pods[pod, 0].owner and pods[pod, 0].silent_seconds == 0
                )
            )
        finally:
            await killed.close()


async def test_replicas_of_other_settings_do_not_believe_each_other(redis: StoreProcess) -> None:
    async with replicated_fleet(redis.url, seed=9) as (fleet, prompts):
        endpoints = [publisher.endpoint for publisher in fleet.publishers]
        other = next(  # both have a share
            name
            for name in map(str, itertools.count())
            if len({rendezvous_owner(endpoint, ["a", name]) for endpoint in endpoints}) == 2
        )
        await fleet.start("a")
        await fleet.until_connected()
        fleet.publish()
        await fleet.until_agreed()
        await fleet.start(other, block_size=16)
        shares = fleet.expected_owners()
        while await fleet.distrusted() != shares:
            for engine in fleet.engines:
                engine.serve(prompts[0])
            fleet.publish()
        for name, service in fleet.replicas.items():
            stub = scoring_pb2_grpc.ScoringServiceStub(service.channel)
            answer = await stub.Score(score_request(prompts[0]))
            for score in answer.pods:
                is_own = shares[score.pod] == name
                assert (score.trust_reason == "other_settings") != is_own
        await fleet.stop("a")
        await fleet.replicas[other].until(
            lambda pods: "other_settings" not in {r.trust_reason for r in pods.values()}
        )


async def test_a_pod_that_the_store_has_lost_is_still_known_to_the_replicas() -> None:
    async with own_store() as store, replicated_fleet(store.url, seed=3) as (fleet, prompts):
        for name in "ab":
            await fleet.start(name, copy_blocks=False)
        await fleet.until_connected()
        fleet.publish()
        await fleet.until_agreed()
        assert not (await fleet.ask(prompts))[1]
        with store.client() as client:
            client.flushall()
        _, doubted = await fleet.ask(prompts)
        assert doubted
        await fleet.until_exact(prompts)


async def test_replicas_stay_live_where_the_store_has_lost_their_leases(
    redis: StoreProcess,
) -> None:
    async with Server(patient_address(redis.url)) as server:
        store = Store(server, f"lost_leases_{time.time_ns()}")
        one, two = (Membership(store, name, 60.0, StoreFailures()) for name in ("one", "two"))
        for membership in (one, two, one):
            await membership.send_heartbeat()
        assert one.live_names == ["one", "two"]
        with redis.client() as client:
            client.delete(f"{store.layout.prefix(0)}replicas")
        await one.send_heartbeat()
        assert one.live_names == ["one", "two"]  # so that no worker of the other changes hands
        await two.deregister()
        assert (await store.heartbeat(one.identity, 60.0)).live == {one.identity}


async def test_a_replica_that_was_away_hands_nothing_over_to_one_that_has_left(
    redis: StoreProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Server(patient_address(redis.url)) as server:
        store = Store(server, f"left_{time.time_ns()}")
        away, left, other = (Membership(store, name, 60.0, StoreFailures()) for name in "alo")
        for membership in (away, left, other, away):
            await membership.send_heartbeat()
        assert away.staying_names == ["a", "l", "o"]
        await left.announce_leaving()
        await left.deregister()
        await other.send_heartbeat()
        assert other.live_names == ["a", "o"]
        away._last_renewal -= 60.0
        await away.send_heartbeat()
        assert away.live_names == ["a", "l", "o"]  # as if the store had been away
        assert away.staying_names == ["a", "o"]
        monkeypatch.setattr(membership_module, "_REMEMBERED_SECONDS", 0.0)
        await other.send_heartbeat()
        with redis.client() as client:
            assert not client.exists(f"{store.layout.prefix(0)}leaving")


@pytest.mark.parametrize("value", [b"\xff", b"x" * 2_000_000], ids=["bytes", "long"])
async def test_replicas_stay_live_where_the_store_has_damaged_their_leases(
    redis: StoreProcess, value: bytes
) -> None:
    async with Server(patient_address(redis.url)) as server:
        store = Store(server, f"damaged_leases_{time.time_ns()}")
        one, two = (Membership(store, name, 60.0, StoreFailures()) for name in ("one", "two"))
        for membership in (one, two):
            await membership.send_heartbeat()
        with redis.client() as client:
            for name in (two.identity, "nobody"):
                client.hset(f"{store.layout.prefix(0)}replicas", name, value)
        with pytest.raises(StoreError, match="MALFORMED replicas"):
            await store.heartbeat(one.identity, 60.0)
        heartbeat = await store.heartbeat(one.identity, 60.0)
        assert heartbeat.live == {one.identity, two.identity}


async def test_without_a_copy_a_replica_reports_at_once_that_the_store_is_away() -> None:
    async with own_store() as store, replicated_fleet(store.url, seed=4) as (fleet, prompts):
        await fleet.start("a", copy_blocks=False)
        await fleet.until_connected()
        fleet.publish()
        await fleet.until_agreed()
        store.kill()
        stub = scoring_pb2_grpc.ScoringServiceStub(fleet.replicas["a"].channel)
        limit = stretched(1.0)
        for _ in range(20):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.Score(score_request(prompts[0]), timeout=limit)
            assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
            assert "store" in str(raised.value.details())
        await asyncio.to_thread(store.start)
        await fleet.until_agreed()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                try:
                    await stub.Score(score_request(prompts[0]))
                except grpc.aio.AioRpcError as error:
                    assert error.code() == grpc.StatusCode.UNAVAILABLE
                    continue
                break
        await fleet.until_exact(prompts)


async def test_an_operator_s_command_works_at_any_replica(redis: StoreProcess) -> None:
    async with replicated_fleet(redis.url, seed=5) as (fleet, _):
        for name in "ab":
            await fleet.start(name)
        await fleet.until_connected()
        fleet.publish()
        await fleet.until_agreed()
        pod, owner = next(iter(fleet.expected_owners().items()))
        other = "b" if owner == "a" else "a"
        stub = fleet_pb2_grpc.FleetServiceStub(fleet.replicas[other].admin)
        answer = await stub.ResyncPod(fleet_pb2.ResyncPodRequest(pod=pod))
        assert list(answer.emptied_ranks) == [0]  # there is no replay socket
        for service in fleet.replicas.values():
            await service.until(lambda pods: pods[pod, 0].trust_reason == "resync")
            await service.until(lambda pods: not sum(pods[pod, 0].blocks_by_tier.values()))
        await stub.ForgetPod(fleet_pb2.ForgetPodRequest(pod=pod))
        assert (pod, 0) not in await fleet.replicas[other].pods()
        await fleet.replicas[owner].until(
            lambda pods: (pod, 0) not in pods or not pods[pod, 0].HasField("last_sequence")
        )


async def test_a_pod_that_every_replica_has_lost_is_expected_again(redis: StoreProcess) -> None:
    """A replica took it, lost the store, and the store lost what it knew of that."""
    async with replicated_fleet(redis.url, seed=10) as (fleet, _):
        service = await fleet.start("a")
        await fleet.until_connected()
        pod = fleet.engines[0].name
        lost = service.application.replica
        assert isinstance(lost, SharedReplica)
        before = lost.writer.owned[Worker(pod, 0)].epoch
        await lost.store.remove_worker(Worker(pod, 0), None)
        await service.until(lambda pods: (pod, 0) in pods and not pods[pod, 0].owner)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (again := lost.writer.owned.get(Worker(pod, 0))) is None or (
                again.epoch == before
            ):
                await fleet.listed("a")


async def test_a_pod_that_connects_belongs_to_the_replica_that_it_connects_to(
    redis: StoreProcess,
) -> None:
    engines, prompts = served_workload(6, 8, 1, pods=1, requests=30, images=False, now=time.time)
    (engine,) = engines
    namespace = "connecting-pods"
    sources = [{"endpoint": "tcp://127.0.0.1:0", "bind": True}]

    def settings(name: str) -> Any:
        store = {"url": redis.url, "namespace": namespace, "replica": name}
        store["lease_seconds"] = str(stretched(0.6))
        return local_configuration(sources=sources, index={"block_size": 8}, store=store)

    async with AsyncExitStack() as stack:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        stack.callback(context.term)
        one = await stack.enter_async_context(AsyncExitStack())
        a = await one.enter_async_context(running_service(settings("a")))
        b = await stack.enter_async_context(running_service(settings("b")))
        first, second = (
            Publisher(context, connect=service.application.endpoints[0]) for service in (a, b)
        )
        stack.callback(first.close)
        stack.callback(second.close)
        await first.until_subscribed()
        await second.until_subscribed()
        half = len(engine.frames) // 2
        for frame in engine.frames[:half]:
            first.send(frame)
        for service in (a, b):
            await service.until_applied({(engine.name, 0): half - 1})
        assert (await b.pods())[engine.name, 0].owner == "a"
        second.send(engine.frames[half])  # somebody else's: counted, and not applied
        ingest, request = b.application.listener.router, fleet_pb2.ListPodsRequest()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not ingest.skipped["owned_elsewhere"]:
                await b.pods()
        await one.aclose()
        stub = fleet_pb2_grpc.FleetServiceStub(b.admin)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while len((await stub.ListPods(request)).shared_index.live_replicas) > 1:
                pass
        for frame in engine.frames[half:]:
            second.send(frame)
        await b.until_applied({(engine.name, 0): len(engine.frames) - 1})
        scoring = scoring_pb2_grpc.ScoringServiceStub(b.channel)
        for prompt in prompts:
            answer = await scoring.Score(score_request(prompt))
            assert answer.pods[0].matched_blocks == engine.resident(prompt)


async def test_a_new_replica_is_ready_when_its_copy_is_warm(
    redis: StoreProcess, tmp_path: Path
) -> None:
    async with (
        replicated_fleet(redis.url, seed=7) as (fleet, prompts),
        CuttableProxy(redis.port) as proxy,
    ):
        await fleet.start("a")
        await fleet.until_connected()
        fleet.publish()
        await fleet.until_agreed()
        proxy.silence()
        text = f"""
                [index]
                block_size = 8
                [store]
                url = "redis://127.0.0.1:{proxy.port}"
                namespace = "{fleet.namespace}"
                ready_seconds = 60
                """
        replica = ReplicaProcess("b", text, free_port(), tmp_path)
        try:
            replica.start()
            for _ in range(3):
                assert await replica.health() == health_pb2.HealthCheckResponse.NOT_SERVING
            proxy.heal()
            await replica.until_serving()
            stub = scoring_pb2_grpc.ScoringServiceStub(replica.channel)
            for prompt in prompts[:5]:  # right from the first answer on
                answer = await stub.Score(score_request(prompt))
                held = {score.pod: score.matched_blocks for score in answer.pods}
                assert held == {engine.name: engine.resident(prompt) for engine in fleet.engines}
                assert answer.HasField("copy_behind_seconds")
        finally:
            await replica.close()
