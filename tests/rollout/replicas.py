"""Replicas as processes that are replaced one by one, as a Deployment does it."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
import uuid
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from rollout.name_server import NameServer, name_server
from support.ports import free_port
from support.services.replica_process import ReplicaProcess

if TYPE_CHECKING:
    from typing import Self

CONFIGURATION = """
[index]
block_size = 16
[store]
url = "{url}"
namespace = "{namespace}"
replica = "{name}"
[discovery]
file = "{pods}"
"""
_ESTABLISHED = "01"  # in /proc/net/tcp


@dataclass(frozen=True)
class Pace:
    """How long each step of a replacement takes, in seconds."""

    min_ready: float = 5.0
    """As `minReadySeconds`: a new replica is ready for so long before an old one stops."""
    pre_stop: float = 5.0
    """As the `sleep` of `preStop`: before SIGTERM, the replica is already no endpoint."""
    lame_duck: float = 3.0
    """As `grpc.lame_duck_seconds`."""
    endpoints: float = 1.0
    """Until the name server knows of a change."""


class Replicas:
    """Replicas on addresses of their own, and one port, behind one name.

    Attributes:
        names: the name server.
        running: the replicas, the oldest first.
    """

    def __init__(self, folder: Path, url: str, pods: Path, pace: Pace) -> None:
        self.running: list[ReplicaProcess] = []
        self._folder = folder
        self._url = url
        self._pods = pods
        self._pace = pace
        self._namespace = f"rollout-{uuid.uuid4().hex[:8]}"
        self._port = free_port()
        self._numbers = itertools.count(1)
        self._stack = AsyncExitStack()
        self._telling: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self.names: NameServer = await self._stack.enter_async_context(name_server())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._telling:
            task.cancel()
        await self._stack.aclose()

    @property
    def target(self) -> str:
        """What clients connect to: the name, and who knows it."""
        return f"dns://127.0.0.1:{self.names.port}/kvatlas-headless.test:{self._port}"

    async def start(self) -> ReplicaProcess:
        """Start another replica, and wait until it is ready."""
        number = next(self._numbers)
        configuration = CONFIGURATION.format(
            url=self._url, namespace=self._namespace, name=f"replica-{number}", pods=self._pods
        )
        replica = ReplicaProcess(
            f"replica-{number}",
            configuration,
            self._port,
            self._folder,
            host=f"127.0.0.{10 + number}",
            lame_duck_seconds=self._pace.lame_duck,
        )
        self._stack.push_async_callback(replica.close)
        replica.start()
        await replica.until_serving()
        self.running.append(replica)
        self._tell_later()
        return replica

    async def until_named(self) -> None:
        """Wait until the name server knows of all changes."""
        await asyncio.gather(*self._telling)

    async def replace_oldest(self) -> float:
        """Replace a replica by a new one; returns the seconds from SIGTERM to its end."""
        await self.start()
        await asyncio.sleep(self._pace.min_ready)
        old = self.running.pop(0)
        self._tell_later()
        await asyncio.sleep(self._pace.pre_stop)
        begun = time.monotonic()
        await old.terminate()
        return time.monotonic() - begun

    async def crash_oldest(self) -> None:
        """Kill a replica; another one takes its place."""
        self.running.pop(0).kill()
        self._tell_later()
        await self.start()

    def connections(self) -> list[int]:
        """How many clients are connected to each running replica, the oldest first."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        local = Counter(row[1][-13:] for row in rows if row[3] == _ESTABLISHED)
        own = 1  # with which this process has asked for the replica's health
        return [local[_in_proc(replica.host, self._port)] - own for replica in self.running]

    def _tell_later(self) -> None:
        task = asyncio.create_task(self._tell([replica.host for replica in self.running]))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, addresses: list[str]) -> None:
        await asyncio.sleep(self._pace.endpoints)
        self.names.addresses = addresses


def _in_proc(host: str, port: int) -> str:
    """An address as /proc/net/tcp has it."""
    return f"{int.from_bytes(ip_address(host).packed, sys.byteorder):08X}:{port:04X}"
