"""The service in this process, with channels to it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc
from kvatlas.v1.trust_pb2 import TRUST_STATE_RECOVERING

from service.application import Application
from service.config.configuration import load
from support.deadlines import DEADLINE_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from service.config.configuration import Configuration

Ranks = dict[tuple[str, int], fleet_pb2.Rank]
"""What ListPods says of each rank, by pod and number."""


def local_configuration(**settings: Any) -> Configuration:
    """A configuration that listens on free local ports, with `settings` on top."""
    return load(
        None,
        {
            "grpc": {"listen": ["127.0.0.1:0"], "drain_seconds": 0.1},
            "admin": {"listen": ["127.0.0.1:0"]},
            "metrics": {"listen": "127.0.0.1:0"},
            "log": {"level": "error"},
            **settings,
        },
    )


class RunningService:
    """A running service with a channel to it, and one to its administration."""

    def __init__(
        self, application: Application, channel: grpc.aio.Channel, admin: grpc.aio.Channel
    ) -> None:
        self.application = application
        self.channel = channel
        self.admin = admin

    def channel_of(self, method: str) -> grpc.aio.Channel:
        """The channel on which a method is served, given its full name."""
        return self.admin if "FleetService/" in method else self.channel

    async def pods(self) -> Ranks:
        """What ListPods says now."""
        stub = fleet_pb2_grpc.FleetServiceStub(self.admin)
        answer = await stub.ListPods(fleet_pb2.ListPodsRequest())
        return {(pod.pod, rank.rank): rank for pod in answer.pods for rank in pod.ranks}

    async def until(self, holds: Callable[[Ranks], bool]) -> None:
        """Wait until `holds` is true of what ListPods says."""
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while not holds(await self.pods()):
                    pass
        except TimeoutError:
            raise TimeoutError(f"ListPods still says {await self.pods()}") from None

    async def until_applied(self, last: Mapping[tuple[str, int], int]) -> None:
        """Wait until the frames of these ranks with these sequence numbers are applied."""
        await self.until(
            lambda pods: all(
                worker in pods
                and pods[worker].HasField("last_sequence")
                and pods[worker].last_sequence >= sequence
                for worker, sequence in last.items()
            )
        )

    async def until_received(self, frames: Mapping[tuple[str, int], int]) -> None:
        """Wait until so many live frames have arrived and no rank is recovering."""
        await self.until(
            lambda pods: all(
                worker in pods
                and pods[worker].live_frames >= count
                and pods[worker].trust_state != TRUST_STATE_RECOVERING
                for worker, count in frames.items()
            )
        )


@asynccontextmanager
async def running_service(configuration: Configuration) -> AsyncIterator[RunningService]:
    """A service with `configuration`, ready to answer."""
    async with AsyncExitStack() as stack:
        application = await stack.enter_async_context(Application(configuration))
        channel, admin = [
            await stack.enter_async_context(grpc.aio.insecure_channel(addresses[0]))
            for addresses in (application.addresses, application.admin_addresses)
        ]
        yield RunningService(application, channel, admin)
