"""Engines die, come back and speak in others' names: nothing is exact that nobody vouches for."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import zmq
from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc, scoring_pb2
from kvatlas.v1.trust_pb2 import TRUST_STATE_DEGRADED, TRUST_STATE_EXACT, TRUST_STATE_STALE
from support.deadlines import stretched
from support.engines.faulty import Faults, FaultyEngine
from support.engines.publisher import Publisher
from support.engines.simulated import Prompt, SimulatedEngine
from support.ports import free_port
from support.services.one_pod import MODEL, block_stored, frame, score, score_request
from support.services.running import RunningService, local_configuration, running_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PROMPT = Prompt(tuple(range(64)))
POD = ("127.0.0.1:8000", 0)


@asynccontextmanager
async def engine_and_service(
    *, binds: bool, **source: Any
) -> AsyncIterator[tuple[FaultyEngine, RunningService]]:
    """An engine that has cached the prompt, and a service that knows it exactly."""
    async with AsyncExitStack() as stack:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        stack.callback(context.term)
        port, replay = (free_port() for _ in range(2))
        replay_endpoint = f"tcp://127.0.0.1:{replay}"
        endpoint = f"tcp://127.0.0.1:{port}"
        of: dict[str, Any] = {"endpoint": endpoint, "replay": replay_endpoint}
        of |= {"bind": True, "replay": f"tcp://{{host}}:{replay}"} if binds else {"pod": POD[0]}
        naive = SimulatedEngine(POD[0], MODEL, 16, 50, random.Random(1), now=time.time)
        engine = FaultyEngine(
            context, naive, endpoint, replay_endpoint, Faults(), random.Random(2), connects=binds
        )
        stack.push_async_callback(engine.close)
        naive.serve(PROMPT)
        settings = local_configuration(
            sources=[{**of, **source}], events={"replay_timeout_seconds": 0.5}
        )
        async with running_service(settings) as service:
            await engine.start()
            await engine.until_subscribed()
            engine.publish(perfectly=True)
            await service.until(lambda pods: _is_exact(pods, 0))
            yield engine, service


def _is_exact(pods: dict[tuple[str, int], fleet_pb2.Rank], sequence: int) -> bool:
    rank = pods.get(POD)
    return (
        rank is not None
        and rank.trust_state == TRUST_STATE_EXACT
        and rank.last_sequence >= sequence
    )


async def the_pod(service: RunningService) -> scoring_pb2.PodScore:
    (found,) = (await score(service, score_request(list(PROMPT.tokens)))).pods
    return found


@pytest.mark.parametrize("binds", [False, True])
async def test_a_dead_engine_is_not_exact_within_a_second(binds: bool) -> None:
    async with engine_and_service(binds=binds, model="" if binds else MODEL) as (
        engine,
        service,
    ):
        assert (await the_pod(service)).matched_blocks == 4
        limit = stretched(1.0)
        await engine.close()
        async with asyncio.timeout(limit):
            while (found := await the_pod(service)).trust_state == TRUST_STATE_EXACT:
                pass
        assert (found.trust_state, found.trust_reason) == (TRUST_STATE_STALE, "disconnected")
        assert found.matched_blocks == 4  # kept, and marked


async def test_an_engine_that_comes_back_is_exact_once_it_is_listened_to_again() -> None:
    async with engine_and_service(binds=False, model=MODEL) as (engine, service):
        await engine.restart(0)
        await service.until(
            lambda pods: pods[POD].trust_reason == "disconnected" or pods[POD].restarts == 1
        )
        engine.engine.serve(Prompt(PROMPT.tokens[:32]))
        while (await the_pod(service)).trust_state != TRUST_STATE_EXACT:
            pass
        assert engine._publisher.poll(0)  # our subscription has come before
        engine.publish(perfectly=True)
        await service.until(lambda pods: _is_exact(pods, 0) and pods[POD].restarts == 1)
        assert (await the_pod(service)).matched_blocks == 2


async def test_an_idle_engine_that_comes_back_to_a_bound_endpoint_is_told_from_the_old() -> None:
    async with engine_and_service(binds=True) as (engine, service):
        await engine.restart(0)
        await service.until(
            lambda pods: pods[POD].restarts == 1 and pods[POD].trust_reason == "disconnected"
        )
        assert not (await the_pod(service)).matched_blocks
        engine.engine.serve(PROMPT)
        engine.publish(perfectly=True)
        await service.until(lambda pods: _is_exact(pods, 0))
        assert (await the_pod(service)).matched_blocks == 4


async def test_a_replay_socket_that_does_not_answer_takes_exact_away() -> None:
    async with engine_and_service(binds=False, model=MODEL) as (engine, service):
        assert engine._task is not None
        engine._task.cancel()
        stub = fleet_pb2_grpc.FleetServiceStub(service.admin)
        await stub.ResyncPod(fleet_pb2.ResyncPodRequest(pod=POD[0]))
        await service.until(lambda pods: pods[POD].trust_reason == "replay_unanswered")
        engine._task = asyncio.create_task(engine._answer())
        await service.until(lambda pods: _is_exact(pods, 0))


async def test_a_pod_whose_model_is_a_default_is_asked_at_start() -> None:
    async with AsyncExitStack() as stack:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        stack.callback(context.term)
        ports = [free_port() for _ in range(4)]
        sources = []
        for rank in (0, 1):  # neither of them says so
            endpoint, replay = (f"tcp://127.0.0.1:{port}" for port in ports[rank::2])
            naive = SimulatedEngine(POD[0], MODEL, 16, 50, random.Random(rank), now=time.time)
            naive.rank = rank
            if rank:
                naive.serve(PROMPT)
            else:
                naive.serve(Prompt(PROMPT.tokens[:32]))
            engine = FaultyEngine(context, naive, endpoint, replay, Faults(), random.Random(rank))
            stack.push_async_callback(engine.close)
            await engine.start()
            engine._next = len(naive.frames)  # published before anybody listened
            sources.append({"endpoint": endpoint, "pod": POD[0], "replay": replay})
        settings = local_configuration(sources=sources[::-1], default_model="another model")
        async with running_service(settings) as service:
            await service.until(
                lambda pods: (
                    len(pods) == 2
                    and all(rank.trust_state == TRUST_STATE_EXACT for rank in pods.values())
                )
            )
            found = await the_pod(service)
            assert (found.rank, found.matched_blocks) == (1, 4)
            answer = await fleet_pb2_grpc.FleetServiceStub(service.admin).ListPods(
                fleet_pb2.ListPodsRequest()
            )
            assert not answer.warnings


async def test_two_engines_under_one_name_are_reported_and_never_exact() -> None:
    source = {"endpoint": "tcp://127.0.0.1:0", "bind": True}
    with zmq.Context() as context:
        async with running_service(local_configuration(sources=[source])) as service:
            endpoint = service.application.endpoints[0]
            first, second = (Publisher(context, connect=endpoint) for _ in range(2))
            tokens = list(range(64))
            await first.until_subscribed()
            first.send(frame(0, block_stored(tokens)))
            await service.until_applied({("10.0.0.1:8000", 0): 0})
            await second.until_subscribed()
            for number in range(10):
                second.send(frame(number, {"type": "AllBlocksCleared"}))
                first.send(frame(number + 1))
            name = ("10.0.0.1:8000", 0)
            await service.until(
                lambda pods: pods[name].last_sequence == 10 and pods[name].rival_frames == 10
            )
            (found,) = (await score(service, score_request(tokens))).pods
            assert (found.trust_state, found.trust_reason, found.matched_blocks) == (
                TRUST_STATE_DEGRADED,
                "two_engines_one_name",
                4,
            )
            stub = fleet_pb2_grpc.FleetServiceStub(service.admin)
            answer = await stub.ListPods(fleet_pb2.ListPodsRequest())
            assert [warning.kind for warning in answer.warnings] == ["two_engines_one_name"]
            second.close()
            await service.until(lambda pods: pods[name].trust_state == TRUST_STATE_EXACT)
            first.close()
