"""A process with the fleet's model servers: `python -m rollout.model_servers`.

It reads commands from standard input, one JSON object a line, and answers each with one: `start` a
server, let one `serve` prompts from now on, `end` one, and tell what all `held`. Their caches are
small, so that blocks are evicted all the time.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import zmq
from support.engines.model_server import MODEL, ModelServer
from support.engines.simulated import (
    Prompt,
    SimulatedEngine,
    block_contents,
    leading_blocks,
)
from support.engines.workload import related_prompt

BLOCK_SIZE = 16
CAPACITY = 60  # blocks of a pod
PROMPTS = 48


def fleet_prompts() -> list[Prompt]:
    """The prompts that pods serve and callers ask about; many begin as another one does."""
    source, prompts = random.Random(18), list[Prompt]()
    for _ in range(PROMPTS):
        prompts.append(related_prompt(source, prompts, BLOCK_SIZE))
    return prompts


@dataclass
class _Pod:
    server: ModelServer
    engine: SimulatedEngine
    published_at: list[float] = field(default_factory=list)
    task: asyncio.Task[None] | None = None

    async def serve(self, prompts: list[Prompt], seconds: float) -> None:
        """Serve one prompt after the other, and publish what becomes of the cache."""
        (rank,) = self.server.ranks
        while True:
            self.engine.serve(self.engine.random.choice(prompts))
            for _, sequence, payload in self.engine.frames[len(rank.frames) :]:
                self.published_at.append(time.monotonic())
                rank.frames.append([b"", sequence, payload])
                rank.publisher.send(rank.frames[-1])
            await asyncio.sleep(seconds * self.engine.random.uniform(0.5, 1.5))

    def held(self, prompts: list[Prompt]) -> dict[str, Any]:
        """After each frame: when it was published, and the leading blocks of each prompt."""
        chains = [block_contents(prompt, BLOCK_SIZE) for prompt in prompts]
        blocks = [
            bytes(leading_blocks(chain, held.gpu) for chain in chains).hex()
            for held in self.engine.history
        ]
        return {"published_at": self.published_at, "blocks": blocks}


class _Fleet:
    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], seconds: float) -> None:
        self._context = context
        self._seconds = seconds
        self._prompts = fleet_prompts()
        self._pods: dict[str, _Pod] = {}

    async def start(self, has_replay: bool) -> dict[str, Any]:
        server = ModelServer(self._context)
        await server.new_engine()
        server.say_vllm()
        if not has_replay:
            server.answers["/kv_event_sources"][1]["0"]["replay_endpoint"] = None
        await server.serve()
        seed = random.Random(len(self._pods))
        engine = SimulatedEngine(server.pod, MODEL, BLOCK_SIZE, CAPACITY, seed, now=time.time)
        self._pods[server.pod] = _Pod(server, engine)
        return {"pod": server.pod}

    async def serve(self, pod: str) -> dict[str, Any]:
        it = self._pods[pod]
        it.task = asyncio.create_task(it.serve(self._prompts, self._seconds))
        return {}

    async def end(self, pod: str) -> dict[str, Any]:
        it = self._pods[pod]
        if it.task is not None:
            it.task.cancel()
            await asyncio.wait([it.task])
        await it.server.close()
        return {}

    async def held(self) -> dict[str, Any]:
        return {pod: it.held(self._prompts) for pod, it in self._pods.items()}

    async def close(self) -> None:
        for pod in self._pods:
            await self.end(pod)


async def main(seconds: float) -> None:
    """Obey until the input ends. Each pod serves a prompt every so many seconds."""
    with zmq.Context() as context:
        fleet = _Fleet(context, seconds)
        while line := await asyncio.to_thread(sys.stdin.readline):
            command: dict[str, Any] = json.loads(line)
            answer = await getattr(fleet, command.pop("do"))(**command)
            print(json.dumps(answer), flush=True)
        await fleet.close()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
