"""Pods that publish recorded or generated frames over real sockets, and a service to hear them."""

from __future__ import annotations

import asyncio
import gzip
import json
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import zmq
from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc
from kvatlas.v1.trust_pb2 import TRUST_STATE_RECOVERING

from service.application import Application
from service.config.configuration import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from service.config.configuration import Configuration

DATA = Path(__file__).parents[1] / "data"
PATIENCE = 30.0


def read_trace(name: str) -> list[dict[str, Any]]:
    """The lines of a recorded trace."""
    with gzip.open(DATA / "traces" / f"{name}.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def configure(**settings: Any) -> Configuration:
    """A configuration that listens on free local ports, with `settings` on top."""
    return load(
        None,
        {
            "grpc": {"listen": ["127.0.0.1:0"], "drain_seconds": 0.1},
            "metrics": {"listen": "127.0.0.1:0"},
            "log": {"level": "error"},
            **settings,
        },
    )


class Publisher:
    """A real PUB socket that sends what it is told, as one pod."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], connect: str | None = None) -> None:
        self._socket = context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        if connect is None:
            self._socket.bind("tcp://127.0.0.1:*")
        else:
            self._socket.connect(connect)

    @property
    def endpoint(self) -> str:
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    async def subscribed(self) -> None:
        """Wait until somebody has subscribed."""
        if not await asyncio.to_thread(self._socket.poll, int(PATIENCE * 1000)):
            raise TimeoutError(f"nobody subscribed to {self.endpoint}")
        self._socket.recv()

    def send(self, frames: list[bytes]) -> None:
        self._socket.send_multipart(frames)

    def close(self) -> None:
        self._socket.close()


class Running:
    """A running service with a channel to it."""

    def __init__(self, application: Application, channel: grpc.aio.Channel) -> None:
        self.application = application
        self.channel = channel

    async def pods(self) -> dict[tuple[str, int], fleet_pb2.Rank]:
        """What ListPods says, by pod and rank."""
        stub = fleet_pb2_grpc.FleetServiceStub(self.channel)
        answer = await stub.ListPods(fleet_pb2.ListPodsRequest())
        return {(pod.pod, rank.rank): rank for pod in answer.pods for rank in pod.ranks}

    async def heard(self, last: dict[tuple[str, int], int]) -> None:
        """Wait until the frames with these sequence numbers have been applied."""
        async with asyncio.timeout(PATIENCE):
            while True:
                pods = await self.pods()
                if all(
                    worker in pods
                    and pods[worker].HasField("last_sequence")
                    and pods[worker].last_sequence >= sequence
                    for worker, sequence in last.items()
                ):
                    return

    async def until(self, holds: Callable[[dict[tuple[str, int], fleet_pb2.Rank]], bool]) -> None:
        """Wait until what ListPods says is so."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not holds(await self.pods()):
                    pass
        except TimeoutError:
            raise TimeoutError(f"still so: {await self.pods()}") from None

    async def received(self, frames: Mapping[tuple[str, int], int]) -> None:
        """Wait until so many live frames have been taken, and nothing is being recovered."""
        await self.until(
            lambda pods: all(
                worker in pods
                and pods[worker].live_frames >= count
                and pods[worker].trust_state != TRUST_STATE_RECOVERING
                for worker, count in frames.items()
            )
        )


@asynccontextmanager
async def running(configuration: Configuration) -> AsyncIterator[Running]:
    """A service with `configuration`, ready to answer."""
    async with AsyncExitStack() as stack:
        application = await stack.enter_async_context(Application(configuration))
        address = application.addresses[0]
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        yield Running(application, channel)
