"""A simulated engine behind real PUB and ROUTER sockets that lose, repeat and damage frames."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import zmq
from kvatlas.v1.trust_pb2 import TRUST_STATE_EXACT, TRUST_STATE_PARTIAL

from support.deadlines import DEADLINE_SECONDS
from support.engines.simulated import block_contents, leading_blocks

if TYPE_CHECKING:
    from kvatlas.v1 import scoring_pb2

    from support.engines.simulated import HeldContents, Prompt, SimulatedEngine

END = b"\xff" * 8


@dataclass(frozen=True)
class Faults:
    """How likely a frame meets each fault, and how replays are answered."""

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    """The frame is sent after its successor."""
    delay: float = 0.0
    """The frame is sent some publications later."""
    damage: float = 0.0
    """The payload is cut short."""
    replay: str = "whole"
    """none (no socket), whole, truncated, slow, partly, endless (no end marker) or silent."""
    topic: bool = True
    """Whether replayed frames carry their topic."""


@dataclass(eq=False)
class FaultyEngine:
    """Publishes the frames of its engine between start() and close().

    Attributes:
        context: of the sockets.
        engine: whose frames are published.
        endpoint: where it publishes: bound, or the service's, to which it `connects`.
        replay_endpoint: where it answers replay requests.
        faults: what happens to frames and replays.
        source: decides which frames meet faults.
        connects: whether it connects to `endpoint` instead of binding it.
        sent: frames that were sent in all incarnations.
        happened: faults so far, by kind.
        lives: of each incarnation, what the engine held after each frame.
    """

    context: zmq.Context[zmq.Socket[bytes]]
    engine: SimulatedEngine
    endpoint: str
    replay_endpoint: str
    faults: Faults
    source: random.Random
    connects: bool = False
    sent: int = 0
    happened: Counter[str] = field(default_factory=Counter)
    lives: list[list[HeldContents]] = field(default_factory=list)
    _subscribers: int = 0
    _next: int = 0
    _late: list[list[bytes]] = field(default_factory=list)
    _task: asyncio.Task[None] | None = None
    _publisher: zmq.Socket[bytes] = None  # type: ignore[assignment]
    _router: zmq.Socket[bytes] = None  # type: ignore[assignment]

    async def start(self) -> None:
        """Open the sockets and wait for a subscriber."""
        self.lives.append(self.engine.history)
        self._subscribers = 0
        self._publisher = self.context.socket(zmq.XPUB)
        self._publisher.setsockopt(zmq.LINGER, 0)
        self._publisher.setsockopt(zmq.SNDHWM, 0)
        self._publisher.setsockopt(zmq.XPUB_VERBOSER, 1)
        if self.connects:
            self._publisher.connect(self.endpoint)
        else:
            await bind(self._publisher, self.endpoint)
        if self.faults.replay != "none":
            self._router = self.context.socket(zmq.ROUTER)
            self._router.setsockopt(zmq.LINGER, 0)
            await bind(self._router, self.replay_endpoint)
            self._task = asyncio.create_task(self._answer())

    async def until_subscribed(self) -> None:
        """Wait for a subscription."""
        while not await self._next_subscribes():
            pass

    async def until_one_subscriber(self) -> None:
        """Wait until exactly one subscription is left."""
        while self._subscribers != 1:
            await self._next_subscribes()

    async def _next_subscribes(self) -> bool:
        """Wait for the next (un)subscription: whether it is a subscription."""
        if not await asyncio.to_thread(self._publisher.poll, int(DEADLINE_SECONDS * 1000)):
            raise TimeoutError(f"{self.engine.name} has {self._subscribers} subscribers")
        came = self._publisher.recv().startswith(b"\1")
        self._subscribers += 1 if came else -1
        return came

    async def close(self) -> None:
        """Close the sockets at once; unsent frames are lost."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        for socket in (self._publisher, self._router):
            if socket is not None:
                socket.close(linger=0)

    async def restart(self, unheard: int) -> None:
        """Restart as a new incarnation, whose first `unheard` frames are never sent."""
        await self.close()
        self.happened["restart"] += 1
        self.engine.restart()
        self._late.clear()
        self._next = unheard
        await self.start()

    # What must hold

    def check(self, prompt: Prompt, score: scoring_pb2.PodScore, story: str) -> None:
        """An exact score is that after the frame it names; a partial one is no higher."""
        if score.trust_state not in (TRUST_STATE_EXACT, TRUST_STATE_PARTIAL):
            return
        chain = block_contents(prompt, self.engine.block_size)
        answered = (
            score.matched_blocks,
            score.matched_blocks_by_tier.get("gpu", 0),
            score.reusable_tokens,
        )
        truths = []
        for life in self.lives:
            if not score.HasField("as_of_sequence"):
                truths.append((0, 0, 0))
            elif score.as_of_sequence < len(life):
                held = life[score.as_of_sequence]
                reused = self.engine.reusable_tokens(prompt, held)
                whole = leading_blocks(chain, held.gpu | held.cpu)
                truths.append((whole, leading_blocks(chain, held.gpu), reused))
        if score.trust_state == TRUST_STATE_EXACT:
            assert answered in truths, (score, truths, story)
        else:
            less = [all(a <= b for a, b in zip(answered, truth, strict=True)) for truth in truths]
            assert any(less), (score, truths, story)

    # Publishing

    def publish(self, perfectly: bool = False) -> None:
        """Send the new frames; `perfectly`: without faults, and the late ones too."""
        frames = self.engine.frames[self._next :]
        self._next = max(self._next, len(self.engine.frames))
        index = 0
        while index < len(frames):
            fault = "" if perfectly else self._fault()
            if fault == "reorder" and index + 1 < len(frames):
                self.happened[fault] += 1
                self._send(frames[index + 1])
                self._send(frames[index])
                index += 2
                continue
            self._publish(frames[index], fault)
            index += 1
        while self._late and (perfectly or self.source.random() < 0.3):
            self._send(self._late.pop(0))

    def _fault(self) -> str:
        faults = self.faults
        names = ["drop", "duplicate", "reorder", "delay", "damage"]
        weights = [getattr(faults, name) for name in names]
        return self.source.choices([*names, ""], [*weights, 1 - sum(weights)])[0]

    def _publish(self, frame: list[bytes], fault: str) -> None:
        if fault in ("drop", "duplicate", "delay", "damage"):
            self.happened[fault] += 1
        match fault:
            case "drop":
                pass
            case "delay":
                self._late.append(frame)
            case "damage":
                cut = self.source.randrange(1, len(frame[2]) - 1)
                self._send([frame[0], frame[1], frame[2][:cut]])
            case "duplicate":
                self._send(frame)
                self._send(frame)
            case _:
                self._send(frame)

    def _send(self, frame: list[bytes]) -> None:
        self._publisher.send_multipart(frame)
        self.sent += 1

    # Replays

    async def _answer(self) -> None:
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        descriptor = int(self._router.getsockopt(zmq.FD))
        loop.add_reader(descriptor, woken.set)
        try:
            while True:
                woken.clear()
                while int(self._router.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                    client, _, start = self._router.recv_multipart()
                    await self._replay(client, int.from_bytes(start, "big"))
                await woken.wait()
        finally:
            loop.remove_reader(descriptor)

    async def _replay(self, client: bytes, start: int) -> None:
        mode = self.faults.replay
        self.happened[f"replay {mode}"] += 1
        if mode == "silent":
            return
        frames = self.engine.frames
        kept = frames[-4:] if mode == "truncated" else frames
        for topic, sequence, payload in [f for f in kept if int.from_bytes(f[1], "big") >= start]:
            if mode == "partly" and self.source.random() < 0.3:
                continue
            if mode == "slow":
                await asyncio.sleep(0.005)
            parts = [topic, sequence, payload] if self.faults.topic else [sequence, payload]
            self._router.send_multipart([client, b"", *parts])
        if mode != "endless":
            self._router.send_multipart([client, b"", *[b""] * self.faults.topic, END, b""])


async def bind(socket: zmq.Socket[bytes], endpoint: str) -> None:
    """Bind an endpoint whose former socket ZMQ may still be closing."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            try:
                socket.bind(endpoint)
            except zmq.ZMQError as error:
                if error.errno != zmq.EADDRINUSE:
                    raise
                await asyncio.sleep(0.001)
            else:
                return
