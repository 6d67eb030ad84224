"""Pods that come, go, restart and fail at random, against a naive model of what is to be known.

While it goes on, no exact answer may claim what has not been true for a while. At the end, and
soon, the service listens to what there is and to nothing else, and every answer is exact and true.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from kvatlas.v1 import discovery_pb2, discovery_pb2_grpc
from kvatlas.v1.trust_pb2 import TRUST_STATE_EXACT
from support.deadlines import stretched
from support.engines.model_server import ModelServer, block_stored, model_server, models_of
from support.engines.pods_file import PodsFile
from support.services.one_pod import score, score_request
from support.services.running import RunningService, local_configuration, running_service

from service.discovery import keeper

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

MODELS = ("sim/model", "sim/other")
PODS = 4
PROMPTS = 6
NOTICED_SECONDS = stretched(2.0)
"""An exact answer tells what was true so long ago, at most."""
BROKEN: tuple[tuple[int, Any], ...] = (
    (500, ""),
    (200, "{"),
    (200, {"data": []}),
    (200, "[" * 5000),
    (404, {}),
)
OLD = -1e9


def tokens_of(prompt: int) -> list[int]:
    return list(range(1000 + 100 * prompt, 1000 + 100 * prompt + 64))


class Engine:
    """One model server, and what is true of it."""

    def __init__(self, server: ModelServer) -> None:
        self.server = server
        self.model = MODELS[0]
        self.stored: dict[tuple[str, int], float] = {}
        """Model and prompt -> since when its blocks are held."""
        self._dropped: dict[tuple[str, int], float] = {}
        self.is_serving = True

    async def restart(self, model: str, ranks: int) -> None:
        await self.server.new_engine(ranks)
        now = time.monotonic()
        self._dropped.update(dict.fromkeys(self.stored, now))
        self.stored.clear()
        self.model = model
        self.answer()

    def answer(self) -> None:
        """Answer as the engine is."""
        self.server.say_vllm()
        self.server.answers["/v1/models"] = (200, models_of("vllm", self.model))
        self.server.held.clear()

    def publish(self, prompt: int) -> None:
        """Every rank stores a prompt, once."""
        if (self.model, prompt) not in self.stored:
            for rank in self.server.ranks:
                rank.publish(block_stored(tokens_of(prompt), first_hash=10 * prompt + 1))
            self.stored[self.model, prompt] = time.monotonic()

    async def serve(self, *, is_serving: bool) -> None:
        if is_serving and not self.is_serving:
            await self.server.serve()
        elif self.is_serving and not is_serving:
            await self.server.refuse()
        self.is_serving = is_serving

    def was_held(self, model: str, prompt: int, since: float) -> bool:
        """Whether the prompt's blocks were held at any time since then."""
        key = model, prompt
        return key in self.stored or self._dropped.get(key, OLD) >= since


class RandomFleet:
    """Changes pods at random, and knows what should be known of them."""

    def __init__(
        self, service: RunningService, engines: list[Engine], file: PodsFile, seed: int
    ) -> None:
        self.service = service
        self.engines = {engine.server.pod: engine for engine in engines}
        self.dice = random.Random(seed)
        self.exact_answers = 0
        self._file = file
        self._listed: dict[str, bool] = {}
        """Pods in the file, and whether they are ready."""
        self._registered: set[str] = set()
        self._stub = discovery_pb2_grpc.DiscoveryServiceStub(service.admin)

    # What happens

    async def step(self) -> None:
        engine = self.dice.choice(list(self.engines.values()))
        steps: list[tuple[int, Callable[[Engine], Coroutine[Any, Any, None]]]] = [
            *((6, self._publish), (3, self._list), (3, self._flap), (2, self._restart)),
            *((2, self._serve), (2, self._break), (3, self._register)),
        ]
        weights = [weight for weight, _ in steps]
        ((_, step),) = self.dice.choices(steps, weights)
        await step(engine)

    async def _publish(self, engine: Engine) -> None:
        engine.publish(self.dice.randrange(PROMPTS))

    async def _list(self, engine: Engine) -> None:
        pod = engine.server.pod
        if pod in self._listed and self.dice.random() < 0.5:
            del self._listed[pod]
        else:
            self._listed[pod] = self.dice.random() < 0.7
        self._write()

    def _write(self) -> None:
        self._file.write(
            *({"url": f"http://{pod}", "ready": ready} for pod, ready in self._listed.items())
        )

    async def _register(self, engine: Engine) -> None:
        pod = engine.server.pod
        if pod in self._registered and self.dice.random() < 0.6:
            self._registered.discard(pod)
            await self._stub.UnregisterPod(discovery_pb2.UnregisterPodRequest(pod=pod))
        else:
            self._registered.add(pod)
            await self._register_now(engine)

    async def _register_now(self, engine: Engine, **fields: Any) -> None:
        request = discovery_pb2.RegisterPodRequest(url=engine.server.url, **fields)
        await self._stub.RegisterPod(request)

    async def _flap(self, engine: Engine) -> None:
        """It comes and goes within milliseconds, and may be gone at the end."""
        for _ in range(self.dice.randrange(1, 5)):
            await self._register_now(engine, unready=self.dice.random() < 0.2)
            await asyncio.sleep(self.dice.choice([0, 0, 0.001, 0.003, 0.01, 0.05]))
            pod = engine.server.pod
            await self._stub.UnregisterPod(discovery_pb2.UnregisterPodRequest(pod=pod))
            await asyncio.sleep(self.dice.choice([0, 0, 0.001, 0.003]))
        self._registered.discard(engine.server.pod)
        if self.dice.random() < 0.3:
            await self._register_now(engine, ttl_seconds=self.dice.uniform(0.001, 0.5))

    async def _restart(self, engine: Engine) -> None:
        await engine.restart(self.dice.choice(MODELS), self.dice.choice([1, 1, 2, 3]))

    async def _serve(self, engine: Engine) -> None:
        await engine.serve(is_serving=self.dice.random() < 0.6)

    async def _break(self, engine: Engine) -> None:
        path = self.dice.choice(list(engine.server.answers))
        match self.dice.randrange(3):
            case 0:
                engine.server.held.add(path)
            case 1:
                engine.server.answers[path] = self.dice.choice(BROKEN)
            case _:
                engine.answer()

    # What must be so

    async def matched(self, model: str, prompt: int) -> dict[str, bool]:
        """The pods that hold a prompt, and whether that is exact."""
        request = score_request(tokens_of(prompt), model=model)
        try:
            answer = await score(self.service, request)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.NOT_FOUND
            return {}
        return {
            pod.pod: pod.trust_state == TRUST_STATE_EXACT
            for pod in answer.pods
            if pod.matched_blocks
        }

    async def check_answers(self) -> None:
        """No exact answer claims what has not been true for a while."""
        model, prompt = self.dice.choice(MODELS), self.dice.randrange(PROMPTS)
        since = time.monotonic() - NOTICED_SECONDS
        for pod, is_exact in (await self.matched(model, prompt)).items():
            self.exact_answers += is_exact
            was_held = self.engines[pod].was_held(model, prompt, since)
            assert was_held or not is_exact, (pod, model, prompt)

    async def mend(self) -> None:
        """Everything works from now on."""
        for engine in self.engines.values():
            engine.answer()
            await engine.serve(is_serving=True)
        self._listed = dict.fromkeys(self._listed, True)
        self._write()

    async def check_at_last(self) -> None:
        """What should be known is known, and nothing else."""
        told = self._listed.keys() | self._registered
        ranks = {(pod, rank.rank) for pod in told for rank in self.engines[pod].server.ranks}
        fleet, listener = self.service.application.fleet, self.service.application.listener
        endpoints = {
            rank.publisher.endpoint for pod in told for rank in self.engines[pod].server.ranks
        }

        def is_settled(_: object) -> bool:
            listening = {source.endpoint for source in listener.sources}
            has_all = all(map(listener.is_listening_to, listener.sources))
            return set(fleet.states) == told and listening == endpoints and has_all

        await self.service.until(is_settled)
        await self.service.until(
            lambda pods: (
                set(pods) == ranks
                and all(rank.trust_state == TRUST_STATE_EXACT for rank in pods.values())
            )
        )
        for prompt in range(PROMPTS):
            for model in MODELS:
                held = {pod for pod in told if (model, prompt) in self.engines[pod].stored}
                assert await self.matched(model, prompt) == dict.fromkeys(held, True)
        assert {blocks.worker.pod for blocks in self.service.application.index.workers()} == told
        names = [task.get_name() for task in asyncio.all_tasks()]
        assert sum(name.startswith("keep ") for name in names) == len(told)
        assert not [name for name in names if name.startswith("leave ")]


@pytest.fixture
async def engines() -> AsyncIterator[list[Engine]]:
    async with AsyncExitStack() as stack:
        yield [Engine(await stack.enter_async_context(model_server())) for _ in range(PODS)]


async def run(
    engines: list[Engine], path: Path, seed: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("_FIRST_RETRY", 0.05), ("_LAST_RETRY", 0.2)):
        monkeypatch.setattr(keeper, name, seconds)
    monkeypatch.setattr(keeper, "_RECONNECTED_SECONDS", 0.05)
    file = PodsFile(path / "pods.json")
    file.write()
    discovery = {
        "file": str(file.path),
        "registration": True,
        "timeout_seconds": 0.3,
        "ask_seconds": 1,
        "ready_seconds": 0,
    }
    events = {"poll_seconds": 0.5, "replay_timeout_seconds": 0.5}
    settings = {"discovery": discovery, "events": events, "index": {"block_size": 16}}
    async with running_service(local_configuration(**settings)) as service:
        fleet = RandomFleet(service, engines, file, seed)
        for _ in range(steps):
            await fleet.step()
            await fleet.check_answers()
            await asyncio.sleep(fleet.dice.choice([0, 0, 0.002, 0.02, 0.1]))
        await fleet.mend()
        await fleet.check_at_last()
        assert not service.application.loops.deaths
        print(seed, fleet.exact_answers)


@pytest.mark.parametrize("seed", range(4))
async def test_what_there_is_at_last_is_listened_to_and_nothing_else(
    engines: list[Engine], tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(engines, tmp_path, seed, 60, monkeypatch)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(1000, 1100))
async def test_long_histories_of_a_fleet_end_well(
    engines: list[Engine], tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(engines, tmp_path, seed, 400, monkeypatch)
