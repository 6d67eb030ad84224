"""A fleet that scales up and down: pods that a file lists, in a process of their own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

_MOST_LINE = 64 << 20
_BEFORE_TRAFFIC = 3.0  # a scheduler sends nothing to a pod that it has not seen for a moment
_BEFORE_END = 1.0  # a pod that is not listed any more goes on for a moment


@dataclass
class Life:
    """Of a pod, by `time.monotonic`."""

    has_replay: bool
    listed_at: float
    unlisted_at: float = float("inf")


class ScaledFleet:
    """Model servers, of which a file tells; a half of them has replay sockets.

    Attributes:
        lives: of every pod that there has been.
    """

    def __init__(self, file: Path, event_seconds: float) -> None:
        self.lives: dict[str, Life] = {}
        self._file = file
        self._event_seconds = event_seconds
        self._asking = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._write()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "rollout.model_servers", str(self._event_seconds)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
            limit=_MOST_LINE,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.kill()
        await self._process.wait()

    async def ask(self, do: str, **arguments: Any) -> Any:
        """Give a command to the process of the servers: its answer."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        async with self._asking:
            stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            await stdin.drain()
            return json.loads(await stdout.readline())

    @property
    def listed(self) -> list[str]:
        """The pods that the file lists, the oldest first."""
        return [pod for pod, life in self.lives.items() if life.unlisted_at == float("inf")]

    async def add(self, count: int = 1) -> None:
        """Start pods, list them, and let them serve a moment later."""
        added = []
        for _ in range(count):
            has_replay = len(self.lives) % 2 == 0
            pod = (await self.ask("start", has_replay=has_replay))["pod"]
            self.lives[pod] = Life(has_replay, time.monotonic())
            added.append(pod)
        self._write()
        await asyncio.sleep(_BEFORE_TRAFFIC)
        for pod in added:
            await self.ask("serve", pod=pod)

    async def remove(self) -> None:
        """List the oldest pod no more, and end it a moment later."""
        pod = self.listed[0]
        self.lives[pod].unlisted_at = time.monotonic()
        self._write()
        await asyncio.sleep(_BEFORE_END)
        await self.ask("end", pod=pod)

    async def scale(self, seconds: float) -> None:
        """Add and remove pods in turn, for ever."""
        while True:
            await asyncio.sleep(seconds)
            await self.add()
            await asyncio.sleep(seconds)
            await self.remove()

    def _write(self) -> None:
        beside = self._file.with_suffix(".new")
        beside.write_text(json.dumps({"pods": [f"http://{pod}" for pod in self.listed]}))
        beside.replace(self._file)
