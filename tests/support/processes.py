"""A service of several processes, and what has become of each of them."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from support.deadlines import DEADLINE_SECONDS
from support.ports import free_port
from support.services.process import ServiceProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from contextlib import AsyncExitStack

ALONE = [("grpc.use_local_subchannel_pool", 1)]
"""A channel with a connection of its own."""


class Processes(ServiceProcess):
    """A service of several processes, all of which are serving once this object exists."""

    def __init__(self, *arguments: str, count: int = 2, lame_duck_seconds: str = "0") -> None:
        super().__init__(
            *(f"--processes={count}", "--metrics-listen=127.0.0.1:0"),
            *(f"--bind=tcp://127.0.0.1:{free_port()}", *arguments),  # the same one after a restart
            binds=False,
            lame_duck_seconds=lame_duck_seconds,
            count=count,
        )

    def until(self, is_so: Callable[[], bool]) -> None:
        """Read the log until something is so."""
        while not is_so():
            self.log.append(json.loads(self._next_line()))

    def pids(self) -> dict[int, int]:
        """The operating system's number of each process."""
        started = [line for line in self.log if line["event"] == "process_started"]
        return {int(str(line["process"])): int(str(line["pid"])) for line in started}

    def metric(self, process: int, name: str) -> float:
        """A value that a process exports; 0 if it does not."""
        ports = [
            e["metrics_port"]
            for e in self.log
            if e["event"] == "serving" and e["process"] == process
        ]
        url = f"http://127.0.0.1:{ports[-1]}/metrics"
        with urllib.request.urlopen(url, timeout=DEADLINE_SECONDS) as answer:
            text = answer.read().decode()
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def calls(self, process: int) -> float:
        return self.metric(
            process,
            'grpc_server_handled_total{grpc_code="OK",grpc_method="Score",'
            'grpc_service="kvatlas.v1.ScoringService",grpc_type="unary"}',
        )


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descendants(pid: int) -> dict[int, str]:
    """The programs that a process has started, or those it has started, besides shells."""
    shown = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,comm="], capture_output=True, text=True, check=True
    )
    rows = [line.split(maxsplit=2) for line in shown.stdout.splitlines()]
    found: dict[int, str] = {}
    wanted = [pid]
    while wanted:
        parent = wanted.pop()
        for child, name in ((int(row[0]), row[2]) for row in rows if int(row[1]) == parent):
            found[child] = name
            wanted.append(child)
    return {child: name for child, name in found.items() if name != "sh"}


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def until_dead(pids: Collection[int]) -> None:
    await asyncio.to_thread(wait_until, lambda: not any(map(is_alive, pids)))


async def channels(stack: AsyncExitStack, address: str, count: int) -> list[grpc.aio.Channel]:
    """Channels that have connected, one after the other."""
    made = []
    for _ in range(count):
        channel = grpc.aio.insecure_channel(address, ALONE)
        made.append(await stack.enter_async_context(channel))
        async with asyncio.timeout(DEADLINE_SECONDS):
            await channel.channel_ready()
    return made
