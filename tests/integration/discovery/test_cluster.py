"""A whole service beside an API server: pods of a cluster come, change and go."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from kvatlas.v1.trust_pb2 import TRUST_STATE_EXACT
from support.engines.model_server import ModelServer, block_stored, model_server
from support.kubernetes import ApiServer, Fault, pod
from support.services.one_pod import TOKENS, score, score_request
from support.services.running import RunningService, local_configuration, running_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def servers() -> AsyncIterator[list[ModelServer]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(model_server()) for _ in range(2)]


def object_of(name: str, server: ModelServer, **how: Any) -> dict[str, Any]:
    """The object of a pod whose container has a port called `api`."""
    return pod(name, "127.0.0.1", ports={"api": server.port}, **how)


async def publish(service: RunningService, server: ModelServer) -> None:
    await server.ranks[0].publisher.until_subscribed()
    sequence = server.ranks[0].publish(block_stored(TOKENS))
    await service.until_applied({(server.pod, 0): sequence})


async def test_the_pods_of_a_cluster_are_followed(servers: list[ModelServer]) -> None:
    one, two = servers
    async with ApiServer() as api:
        api.cluster.apply(object_of("one", one, node="n1"))
        kubernetes = {
            "selector": "app=vllm",
            "namespaces": ["models"],
            "ports": ["api"],
            "api_server": api.url,
        }
        configuration = local_configuration(discovery={"kubernetes": kubernetes})
        async with running_service(configuration) as service:
            await publish(service, one)
            state = service.application.fleet.states[one.pod]
            assert (state.by, state.pod.node, state.pod.name) == (
                ("kubernetes",),
                "n1",
                "models/one",
            )
            api.faults.plan("event", Fault("gone"))
            api.faults.plan("list", Fault("status", status=503), Fault("garbage"))
            api.cluster.apply(object_of("two", two))
            await publish(service, two)
            api.cluster.apply(object_of("one", one, ready=False))
            await service.until(lambda pods: pods[one.pod, 0].trust_reason == "not_ready")
            api.cluster.delete(object_of("one", one))
            await service.until(lambda pods: (one.pod, 0) not in pods)
            answer = await score(service, score_request(TOKENS))
            assert [(found.pod, found.matched_blocks) for found in answer.pods] == [(two.pod, 4)]
            assert answer.pods[0].trust_state == TRUST_STATE_EXACT
