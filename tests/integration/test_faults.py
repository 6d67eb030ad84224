"""Seeded schedules of faults, over real sockets: nobody is called exact, or partial, who is not.

A pod reported exact as of frame n has exactly the score of the model as of n; one reported partial
never more than that. Every story that can end well does.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import zmq
from kvatlas.v1 import scoring_pb2, scoring_pb2_grpc
from kvatlas.v1.trust_pb2 import (
    TRUST_STATE_EXACT,
    TRUST_STATE_RECOVERING,
    TrustState,
)
from support.deadlines import DEADLINE_SECONDS
from support.engines.faulty import Faults, FaultyEngine
from support.engines.simulated import Prompt, SimulatedEngine
from support.engines.workload import related_prompt
from support.ports import free_port
from support.services.running import RunningService, local_configuration, running_service

from kvevents.applying.pieces import exhaust
from kvevents.stream.performer import Performer

SEEDS = [*range(24), 1113]  # 1113: the new engine gives out the hashes of the old one again
SOAK_SEEDS = range(1000, 1400)
MODEL = "sim/model"
SIZE = 8


class Schedule:
    """One seed: a service, a few engines, and what befalls them."""

    def __init__(self, seed: int, faultless: bool = False) -> None:
        self.source = source = random.Random(seed)
        self.faultless = faultless
        self.replay = source.choice(
            ["none", "whole", "whole", "truncated", "slow", "partly", "endless", "silent"]
        )
        if faultless:
            self.replay = source.choice(["none", "whole"])
        rates = [0.0 if faultless else source.choice([0, 0, 0.05, 0.15]) for _ in range(5)]
        names = ("drop", "duplicate", "reorder", "delay", "damage")
        topic = source.random() < 0.7
        self.faults = Faults(
            **dict(zip(names, rates, strict=True)), replay=self.replay, topic=topic
        )
        self.binds = source.random() < 0.5
        self.policy = source.choice(["keep", "keep", "forget"])
        self.cpu = source.choice([0, 0, 40])
        self.window = source.choice([0, SIZE + 1, 3 * SIZE])
        self.window_first = source.random() < 0.5
        self.restarts = 0.0 if faultless else source.choice([0, 0.05, 0.1])
        self.service_restarts = 0.0 if self.binds else source.choice([0, 0, 0.1])
        self.snapshot: bytes | None = None
        self.prompts: list[Prompt] = []
        self.states: Counter[int] = Counter()
        self.reasons: Counter[tuple[int, str]] = Counter()
        self.engines: list[FaultyEngine] = []
        self.happened: Counter[str] = Counter()

    async def run(self) -> None:
        async with AsyncExitStack() as stack:
            context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            stack.callback(context.term)
            engines = self._engines()
            ports = [free_port() for _ in range(2 * len(engines))]
            directory = Path(stack.enter_context(TemporaryDirectory()))
            self.path = directory / "snapshot"
            self.configuration = self._configure(engines, ports)
            self.service = AsyncExitStack()
            stack.push_async_callback(self.service.aclose)
            service = await self.service.enter_async_context(running_service(self.configuration))
            for engine, port in zip(engines, ports, strict=False):
                faulty = FaultyEngine(
                    context,
                    engine,
                    service.application.endpoints[0] if self.binds else f"tcp://127.0.0.1:{port}",
                    f"tcp://{engine.name.split(':')[0]}:{self._replay_port(ports)}",
                    self.faults,
                    self.source,
                    connects=self.binds,
                )
                self.engines.append(faulty)
                stack.push_async_callback(faulty.close)
                await faulty.start()
            for faulty in self.engines:
                await faulty.until_subscribed()
            for _ in range(30):
                service = await self._restart_service(service)
                await self._step(service)
            await self._end(service)

    def _engines(self) -> list[SimulatedEngine]:
        clock = itertools.count(1)
        return [
            SimulatedEngine(
                f"127.0.0.{number}:8000",
                MODEL,
                SIZE,
                capacity=50,
                random=random.Random(self.source.random()),
                cpu_capacity=self.cpu,
                window=self.window,
                window_first=self.window_first,
                counted_hashes=self.source.random() < 0.5,
                now=lambda: time.time() + next(clock) * 1e-6,
            )
            for number in (2, 3)
        ]

    def _replay_port(self, ports: list[int]) -> int:
        return ports[-1]

    def _configure(self, engines: list[SimulatedEngine], ports: list[int]) -> Any:
        replay = "" if self.replay == "none" else f"tcp://{{host}}:{self._replay_port(ports)}"
        source: dict[str, Any] = {"replay": replay}
        if self.binds:
            sources = [{**source, "endpoint": "tcp://127.0.0.1:0", "bind": True}]
        else:
            sources = [
                {**source, "endpoint": f"tcp://127.0.0.1:{p}", "pod": e.name, "model": MODEL}
                for e, p in zip(engines, ports, strict=False)
            ]
        events = {
            "poll_seconds": 0.3,
            "replay_timeout_seconds": 0.15,
            "policy": self.policy,
            "stale_seconds": 0,
        }
        return local_configuration(
            sources=sources,
            index={"block_size": SIZE},
            events=events,
            snapshot={"path": str(self.path)} if self.service_restarts else {},
        )

    async def _restart_service(self, service: RunningService) -> RunningService:
        """Sometimes stop it and start it again, sometimes as if it had died some time ago."""
        if self.source.random() >= self.service_restarts:
            return service
        snapshots = service.application.snapshots
        assert snapshots is not None
        if self.source.random() < 0.5:
            await snapshots.write()
            self.snapshot = self.path.read_bytes()
            return service
        await self.service.aclose()
        self.happened["service restart"] += 1
        if self.snapshot is not None and self.source.random() < 0.5:
            self.path.write_bytes(self.snapshot)
        for faulty in self.engines:
            if self.source.random() < 0.5:
                faulty.engine.serve(self._prompt())
                faulty.publish(perfectly=True)
            faulty.sent = 0
        service = await self.service.enter_async_context(running_service(self.configuration))
        for faulty in self.engines:
            await faulty.until_subscribed()
        return service

    async def _step(self, service: RunningService) -> None:
        faulty = self.source.choice(self.engines)
        if self.source.random() < self.restarts:
            await self._restart(faulty)
        elif self.source.random() < 0.05:
            faulty.engine.reset()
        else:
            faulty.engine.serve(self._prompt())
        faulty.publish()
        if self.source.random() < 0.6:
            await self._taken(service)
        await self.check(service)

    async def _restart(self, faulty: FaultyEngine) -> None:
        """The new engine may get as far as the old one, or further, before anybody hears of it."""
        unheard = self.source.choice([0, 0, 1, len(faulty.engine.frames), 3])
        await faulty.restart(unheard)
        if not self.binds or self.source.random() < 0.8:
            await faulty.until_subscribed()
        while len(faulty.engine.frames) < unheard:
            faulty.engine.serve(self._prompt())

    def _prompt(self) -> Prompt:
        self.prompts.append(related_prompt(self.source, self.prompts, SIZE))
        return self.prompts[-1]

    async def _taken(self, service: RunningService) -> None:
        """Wait until what was sent has been taken, unless a connection has eaten it."""
        if any(faulty.happened["restart"] for faulty in self.engines):
            return
        await service.until(
            lambda pods: all(
                not faulty.sent
                or (
                    (rank := pods.get((faulty.engine.name, 0))) is not None
                    and rank.live_frames >= faulty.sent
                )
                for faulty in self.engines
            )
        )

    # What must hold

    async def check(self, service: RunningService) -> None:
        """What is answered for a few prompts, against what each engine has held."""
        if not self.prompts:
            return
        stub = scoring_pb2_grpc.ScoringServiceStub(service.channel)
        for prompt in self.source.choices(self.prompts, k=3):
            request = scoring_pb2.ScoreRequest(model=MODEL)
            request.prompt.token_ids.ids.extend(prompt.tokens)
            try:
                answer = await stub.Score(request)
            except Exception as error:
                if "no pod serves" in str(error):
                    return
                raise
            for score in answer.pods:
                self.states[score.trust_state] += 1
                self.reasons[score.trust_state, score.trust_reason] += 1
                (faulty,) = [f for f in self.engines if f.engine.name == score.pod]
                faulty.check(prompt, score, self.describe())

    async def _end(self, service: RunningService) -> None:
        """The faults are over. Whoever can be exact again is, and all claims are of this life."""
        for faulty in self.engines:
            faulty.faults = Faults(replay=self.replay, topic=self.faults.topic)
            faulty.publish(perfectly=True)
            faulty.engine.serve(self._prompt())
            faulty.publish(perfectly=True)
            faulty.lives = faulty.lives[-1:]
        if self.replay in ("whole", "slow") or self.faultless:
            await self._settled(service)
        await self._noticed(service)
        for _ in range(8):
            await self.check(service)

    async def _settled(self, service: RunningService) -> None:
        await service.until(
            lambda pods: all(
                (rank := pods.get((faulty.engine.name, 0))) is not None
                and rank.trust_state == TRUST_STATE_EXACT
                and rank.last_sequence == len(faulty.engine.frames) - 1
                for faulty in self.engines
            )
        )

    async def _noticed(self, service: RunningService) -> None:
        """Wait until nothing is claimed of a life that is over: a poll or a message shows it."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            pods = await service.pods()
            if all(
                rank.trust_state != TRUST_STATE_RECOVERING
                and rank.last_sequence >= len(faulty.engine.frames) - 1
                for faulty in self.engines
                for rank in [pods[faulty.engine.name, 0]]
            ):
                try:
                    await self.check(service)
                except AssertionError:
                    if time.monotonic() > deadline:
                        raise
                else:
                    return
            assert time.monotonic() < deadline, (pods, self.describe())

    def describe(self) -> str:
        more = f"policy={self.policy} cpu={self.cpu} window={self.window}"
        return f"{self.faults} binds={self.binds} {more}"


def _report(seed: int, schedule: Schedule) -> None:
    """Append what happened in the schedule to the file that FAULTS_REPORT names."""
    report = os.environ.get("FAULTS_REPORT")
    if not report:
        return
    faults: Counter[str] = sum((f.happened for f in schedule.engines), schedule.happened)
    answers = {TrustState.Name(state): count for state, count in schedule.states.items()}
    with Path(report).open("a") as file:
        file.write(json.dumps({"seed": seed, "faults": faults, "answers": answers}) + "\n")


async def run(seed: int, faultless: bool = False) -> Schedule:
    schedule = Schedule(seed, faultless)
    await schedule.run()
    _report(seed, schedule)
    return schedule


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_score_is_called_certain_that_the_engine_contradicts(seed: int) -> None:
    await run(seed)


@pytest.mark.parametrize("seed", range(4))
async def test_without_faults_every_score_is_exact_all_the_time(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin_and_finish(performer: Performer, steps: Iterator[None]) -> None:
        exhaust(steps)

    # Else an answer between two slices of a frame says so: recovering (applying).
    monkeypatch.setattr(Performer, "_begin", begin_and_finish)
    schedule = await run(seed, faultless=True)
    assert schedule.states[TRUST_STATE_EXACT] > 50
    assert set(schedule.states) <= {TRUST_STATE_EXACT, 6}, schedule.reasons  # 6: before any frame


@pytest.mark.soak
@pytest.mark.parametrize("seed", SOAK_SEEDS)
async def test_no_score_of_many_fault_schedules_is_called_certain_that_is_wrong(seed: int) -> None:
    await run(seed)
