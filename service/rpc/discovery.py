"""DiscoveryService: the discovered pods, what their engines say, and registering some."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kvatlas.v1 import discovery_pb2, discovery_pb2_grpc
from typing_extensions import override

from service.config import pod_url
from service.discovery import DiscoveredPod
from service.rpc.errors import InvalidRequestError, RegistrationOffError, UnknownPodError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grpc.aio import ServicerContext

    from service.discovery import DiscoveredFleet, PodState, RegisteredPods
    from service.engines import EngineFacts

_MOST_ROLES = 16
_MOST_CHARACTERS = 512


class DiscoveryServicer(discovery_pb2_grpc.DiscoveryServiceServicer):
    """Lists the discovered pods, and registers some."""

    def __init__(self, fleet: DiscoveredFleet, registered: RegisteredPods | None) -> None:
        """Args: registered: None if pods cannot be registered."""
        self._fleet = fleet
        self._registered = registered

    @override
    async def ListDiscoveredPods(
        self,
        request: discovery_pb2.ListDiscoveredPodsRequest,
        context: ServicerContext[
            discovery_pb2.ListDiscoveredPodsRequest, discovery_pb2.ListDiscoveredPodsResponse
        ],
    ) -> discovery_pb2.ListDiscoveredPodsResponse:
        told = self._fleet.told
        return discovery_pb2.ListDiscoveredPodsResponse(
            pods=[_pod(state) for _, state in sorted(self._fleet.states.items())],
            discoveries=[
                discovery_pb2.Discovery(name=name, pods=len(told[name]) if name in told else None)
                for name in self._fleet.discoveries
            ],
        )

    @override
    async def RegisterPod(
        self,
        request: discovery_pb2.RegisterPodRequest,
        context: ServicerContext[
            discovery_pb2.RegisterPodRequest, discovery_pb2.RegisterPodResponse
        ],
    ) -> discovery_pb2.RegisterPodResponse:
        registered = self._registry()
        try:
            url = pod_url(request.url)
        except ValueError as error:
            raise InvalidRequestError(f"url: {error}") from None
        if len(request.roles) > _MOST_ROLES:
            raise InvalidRequestError(f"roles: there are more than {_MOST_ROLES}")
        seconds = request.ttl_seconds if request.HasField("ttl_seconds") else None
        if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
            raise InvalidRequestError("ttl_seconds is not greater than 0")
        for text in (url, request.model, request.node, request.name, *request.roles):
            if len(text) > _MOST_CHARACTERS or not text.isprintable():
                raise InvalidRequestError(f"{text[:40]!r} is not a short text")
        pod = DiscoveredPod(
            url=url,
            is_ready=not request.unready,
            model=request.model,
            roles=frozenset(request.roles),
            node=request.node,
            name=request.name,
        )
        await registered.register(pod, seconds)
        return discovery_pb2.RegisterPodResponse(pod=pod.address)

    @override
    async def UnregisterPod(
        self,
        request: discovery_pb2.UnregisterPodRequest,
        context: ServicerContext[
            discovery_pb2.UnregisterPodRequest, discovery_pb2.UnregisterPodResponse
        ],
    ) -> discovery_pb2.UnregisterPodResponse:
        if not request.pod:
            raise InvalidRequestError("pod is not set")
        if not await self._registry().unregister(request.pod):
            raise UnknownPodError(request.pod, self._fleet.told.get("registered", ()))
        return discovery_pb2.UnregisterPodResponse()

    def _registry(self) -> RegisteredPods:
        if self._registered is None:
            raise RegistrationOffError
        return self._registered


def _pod(state: PodState) -> discovery_pb2.DiscoveredPod:
    pod = state.pod
    return discovery_pb2.DiscoveredPod(
        pod=pod.address,
        url=pod.url,
        discovered_by=state.by,
        ready=pod.is_ready,
        name=pod.name,
        node=pod.node,
        roles=sorted(pod.roles),
        engine=None if state.facts is None else _engine(state.facts),
        failure=state.failure,
    )


def _engine(facts: EngineFacts) -> discovery_pb2.EngineInfo:
    return discovery_pb2.EngineInfo(
        engine=facts.engine,
        version=facts.version,
        models=facts.models,
        adapters=facts.adapters,
        block_size=facts.block_size,
        publishers=_publishers(facts),
    )


def _publishers(facts: EngineFacts) -> Iterable[discovery_pb2.EventPublisher]:
    for publisher in facts.publishers:
        yield discovery_pb2.EventPublisher(
            rank=publisher.rank,
            endpoint=publisher.endpoint,
            replay_endpoint=publisher.replay,
            topic=publisher.topic,
        )
