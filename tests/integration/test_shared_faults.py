"""Seeded schedules of faults for replicas and their store, each a process of its own.

A fleet publishes; replicas are killed, paused and cut off from the store, the store is killed (and
forgets everything) and paused. Nobody who says exact, or partial, is wrong; at quiescence every
replica says of every pod what the engine holds.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import pytest
import zmq
from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc, scoring_pb2, scoring_pb2_grpc
from kvatlas.v1.trust_pb2 import TRUST_STATE_EXACT, TRUST_STATE_RECOVERING, TrustState
from support.deadlines import DEADLINE_SECONDS, stretched
from support.engines.faulty import Faults, FaultyEngine
from support.engines.simulated import Prompt, SimulatedEngine
from support.engines.workload import related_prompt
from support.ports import free_port
from support.services.replica_process import ReplicaProcess
from support.stores.proxy import CuttableProxy
from support.stores.servers import (
    StoreProcess,
    cluster_processes,
    server_program,
    store_process,
)

from store import rendezvous_owner

FIRST_HAND_OVER = 6000
"""From this seed on, stores fail while workers are handed over."""
SEEDS = [*range(6), *range(FIRST_HAND_OVER, FIRST_HAND_OVER + 4)]
SOAK_SEEDS = [*range(5000, 5200), *range(FIRST_HAND_OVER + 100, FIRST_HAND_OVER + 400)]
MODEL = "sim/model"
SIZE = 8
STEPS = 60
NAMES = ("a", "b", "c")

CONFIGURATION = """
[index]
block_size = {size}
[events]
poll_seconds = 0.3
replay_timeout_seconds = {answer}
stale_seconds = 0
[store]
url = "{store}"
replica = "{name}"
copy_blocks = {copy}
lease_seconds = {lease}
max_lag_seconds = {lag}
timeout_seconds = {answer}
ready_seconds = 5.0
"""


class Schedule:
    """One seed: a store, three replicas, three engines, and what befalls them."""

    def __init__(self, seed: int, faultless: bool = False) -> None:
        self.seed = seed
        self.source = source = random.Random(seed)
        self.faultless = faultless
        self.hands_over = seed >= FIRST_HAND_OVER
        self.kind = ["redis", "valkey", "redis cluster", "valkey cluster"][seed % 4]
        self.copy_blocks = source.random() < 0.7
        self.replay = source.choice(["whole", "whole", "whole", "none"])
        self.rate = 0.0 if faultless else source.choice([0.08, 0.15, 0.25])
        self.second = min(3.0, stretched(1.0))
        self.states: Counter[int] = Counter()
        self.happened: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.prompts: list[Prompt] = []
        self.engines: list[FaultyEngine] = []
        self.replicas: list[ReplicaProcess] = []
        self.proxies: list[CuttableProxy] = []
        self.stores: list[StoreProcess] = []
        self.healing: list[tuple[float, str, int]] = []

    async def run(self) -> None:
        async with AsyncExitStack() as stack:
            urls = self._start_store(stack)
            context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            stack.callback(context.term)
            folder = Path(stack.enter_context(TemporaryDirectory()))
            await self._start_engines(context, stack)
            for name in NAMES:
                if not self.is_cluster:  # whose servers would tell the way around it
                    proxy = CuttableProxy(self.stores[0].port)
                    self.proxies.append(await stack.enter_async_context(proxy))
                    urls = f"redis://127.0.0.1:{proxy.port}"
                text = self._configuration(name, urls)
                replica = ReplicaProcess(name, text, free_port(), folder)
                stack.push_async_callback(replica.close)
                self.replicas.append(replica)
                replica.start()
            for replica in self.replicas:
                await replica.until_serving()
            for faulty in self.engines:
                await faulty.until_subscribed()
            try:
                await self._shared_out()
                await self._begin()
                for _ in range(STEPS):
                    await self._step()
                await self._end()
            except BaseException as error:
                error.add_note(self.describe())
                for replica in self.replicas:
                    error.add_note(f"{replica.name}: {replica.log.read_text()[-4000:]}")
                raise

    @property
    def is_cluster(self) -> bool:
        return "cluster" in self.kind

    def _start_store(self, stack: AsyncExitStack) -> str:
        program, _, _ = self.kind.partition(" ")
        if self.is_cluster:
            cluster = stack.enter_context(cluster_processes(program))
            self.stores = cluster.nodes
            return cluster.url
        process = stack.enter_context(store_process(program))
        self.stores = [process]
        return process.url

    async def _start_engines(
        self, context: zmq.Context[zmq.Socket[bytes]], stack: AsyncExitStack
    ) -> None:
        clock = itertools.count(1)
        replay_port = free_port()
        for number in (2, 3, 4):
            engine = SimulatedEngine(
                f"127.0.0.{number}:8000",
                MODEL,
                SIZE,
                capacity=50,
                random=random.Random(self.source.random()),
                window=self.source.choice([0, SIZE + 1, 3 * SIZE]),
                window_first=self.source.random() < 0.5,
                now=lambda: time.time() + next(clock) * 1e-6,
            )
            faulty = FaultyEngine(
                context,
                engine,
                f"tcp://127.0.0.1:{free_port()}",
                f"tcp://127.0.0.{number}:{replay_port}",
                Faults(replay=self.replay),
                self.source,
            )
            self.engines.append(faulty)
            stack.push_async_callback(faulty.close)
            await faulty.start()

    def _configuration(self, name: str, store: str) -> str:
        copy = str(self.copy_blocks).lower()
        # A busy machine is no fault: without faults nothing may time out.
        second = self.second
        lease, lag, answer = (0.6 * second, 0.5 * second, 0.3 * second)
        if self.faultless:
            lease, lag, answer = 30.0, 30.0, 10.0
        text = CONFIGURATION.format(
            size=SIZE, name=name, store=store, copy=copy, lease=lease, lag=lag, answer=answer
        )
        for faulty in self.engines:
            text += f'\n[[sources]]\nendpoint = "{faulty.endpoint}"\n'
            text += f'pod = "{faulty.engine.name}"\nmodel = "{MODEL}"\n'
            if self.replay != "none":
                text += f'replay = "{faulty.replay_endpoint}"\n'
        return text

    # What happens

    async def _begin(self) -> None:
        """Nobody can miss a frame from the first on, unless a fault makes it."""
        for faulty in self.engines:
            await faulty.until_one_subscriber()
            faulty.engine.serve(self._prompt())
            faulty.publish(perfectly=True)
        for replica in self.replicas:
            await self._settled(replica)

    async def _step(self) -> None:
        faulty = self.source.choice(self.engines)
        if self.source.random() < 0.05:
            faulty.engine.reset()
        else:
            faulty.engine.serve(self._prompt())
        faulty.publish()
        if self.source.random() < self.rate:
            self._fault()
        await self._heal(all_of_it=False)
        self._break_connections()
        await self.check(self.source.choice(self.replicas))
        await asyncio.sleep(self.source.choice([0, 0, 0.02, 0.1]))

    def _fault(self) -> None:
        number = self.source.randrange(len(self.replicas))
        replica = self.replicas[number]
        faults = ["kill", "pause", "store killed", "store paused"]
        fault = self.source.choice(faults + (["cut", "partition"] if self.proxies else []))
        # Seeds of former schedules stay as they are.
        if self.hands_over and self.source.random() < 0.5:
            fault = self.source.choice(["released to a failing store", "lost to a failing store"])
        if any(number == other or "store" in what for _, what, other in self.healing):
            return
        self.happened[fault] += 1
        match fault:
            case "kill":
                replica.kill()
            case "pause":
                replica.pause()
            case "cut":
                self.proxies[number].cut()
            case "partition":
                self.proxies[number].silence()
            case "store killed":
                self.stores[number % len(self.stores)].kill()
            case "store paused":
                self.stores[number % len(self.stores)].pause()
            case _:
                self._hand_over(number, fault)
        lasts = self.source.choice([0.1, 0.4, 1.5])
        self.healing.append((time.monotonic() + lasts, fault, number))

    async def _heal(self, *, all_of_it: bool) -> None:
        now = time.monotonic()
        for due in [due for due in self.healing if all_of_it or due[0] <= now]:
            self.healing.remove(due)
            _, fault, number = due
            match fault:
                case "kill":
                    self.replicas[number].start()
                case "pause":
                    self.replicas[number].resume()
                case "partition":
                    self.proxies[number].heal()
                case "store killed":
                    await asyncio.to_thread(self.stores[number % len(self.stores)].start)
                case "store paused":
                    self.stores[number % len(self.stores)].resume()
                case "released to a failing store" | "lost to a failing store":
                    self._take_writes(number)
                    self.replicas[number].kill()
                    self.replicas[number].start()

    def _hand_over(self, number: int, fault: str) -> None:
        self._refuse_writes(number)
        if fault == "lost to a failing store":
            self.replicas[number].kill()
        else:
            self.replicas[number].ask_to_stop()

    def _refuse_writes(self, number: int) -> None:
        """The store is read-only, or full, while workers are handed over."""
        with self.stores[number % len(self.stores)].client() as client:
            if self.is_cluster or self.source.random() < 0.5:
                client.config_set("maxmemory", "1")
            else:
                client.replicaof("127.0.0.1", "1")

    def _take_writes(self, number: int) -> None:
        with self.stores[number % len(self.stores)].client() as client:
            client.config_set("maxmemory", "0")
            if not self.is_cluster:
                client.replicaof("NO", "ONE")

    def _break_connections(self) -> None:
        """While workers are handed over, connections to the store break at any moment."""
        if self.source.random() < 0.5:
            for _, fault, number in self.healing:
                if "failing store" in fault:
                    with self.stores[number % len(self.stores)].client() as client:
                        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def _prompt(self) -> Prompt:
        self.prompts.append(related_prompt(self.source, self.prompts, SIZE))
        return self.prompts[-1]

    # What must hold

    async def check(self, replica: ReplicaProcess) -> None:
        """Score a few prompts at a replica, which may refuse but must answer in time."""
        if replica.paused or not replica.running or not self.prompts:
            return
        stopping = [self.replicas[n] for _, fault, n in self.healing if "released" in fault]
        if replica in stopping:
            return
        stub = scoring_pb2_grpc.ScoringServiceStub(replica.channel)
        for prompt in self.source.choices(self.prompts, k=3):
            request = scoring_pb2.ScoreRequest(model=MODEL)
            request.prompt.token_ids.ids.extend(prompt.tokens)
            try:
                answer = await stub.Score(request, timeout=max(stretched(3.0), 3 * self.second))
            except grpc.aio.AioRpcError as error:
                assert error.code() != grpc.StatusCode.DEADLINE_EXCEEDED
                assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND)
                self.refused[error.code().name] += 1
                return
            for score in answer.pods:
                self.states[score.trust_state] += 1
                assert not self.faultless or score.trust_state == TRUST_STATE_EXACT
                (faulty,) = [f for f in self.engines if f.engine.name == score.pod]
                faulty.check(prompt, score, f"{replica.name}: {self.describe()}")

    async def _end(self) -> None:
        """The faults are over: everybody agrees with the engines, and so with each other."""
        await self._heal(all_of_it=True)
        for faulty in self.engines:
            faulty.publish(perfectly=True)
        for replica in self.replicas:
            await replica.until_serving()
        await self._shared_out()
        for faulty in self.engines:
            faulty.engine.serve(self._prompt())
            faulty.publish(perfectly=True)
        for replica in self.replicas:
            await self._settled(replica)
        async with asyncio.timeout(DEADLINE_SECONDS):
            # A busy machine may delay a copy for a moment, in which it says so.
            while not await self._is_certain() and self.replay == "whole":
                pass

    async def _is_certain(self) -> bool:
        """Check every replica; whether all of its scores were exact."""
        before = Counter(self.states)
        for replica in self.replicas:
            for _ in range(6):
                await self.check(replica)
        return set(self.states - before) <= {TRUST_STATE_EXACT}

    async def _shared_out(self) -> None:
        """Wait until every replica knows of all, and no pod changes hands."""
        for replica in self.replicas:
            stub = fleet_pb2_grpc.FleetServiceStub(replica.admin)
            async with asyncio.timeout(DEADLINE_SECONDS):
                while True:
                    answer = await stub.ListPods(fleet_pb2.ListPodsRequest())
                    ranks = {pod.pod: rank for pod in answer.pods for rank in pod.ranks}
                    states = [rank.trust_state for rank in ranks.values()]
                    ours = [rank for rank in ranks.values() if not rank.owner]
                    owners = {pod: rank.owner or replica.name for pod, rank in ranks.items()}
                    if (
                        list(answer.shared_index.live_replicas) == list(NAMES)
                        and owners
                        == {
                            f.engine.name: rendezvous_owner(f.endpoint, NAMES) for f in self.engines
                        }
                        and TRUST_STATE_RECOVERING not in states
                        and all(rank.silent_seconds == 0 for rank in ours)  # it is connected
                    ):
                        break

    async def _settled(self, replica: ReplicaProcess) -> None:
        """Wait until it has heard of every last frame, or cannot any more."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        silence = stretched(3.0)
        service = replica.as_service()
        while True:
            pods = await service.pods()
            ranks = [pods.get((faulty.engine.name, 0)) for faulty in self.engines]
            if all(
                rank is not None
                and rank.HasField("last_sequence")
                and rank.last_sequence == len(faulty.engine.frames) - 1
                and rank.trust_state != TRUST_STATE_RECOVERING
                and (rank.trust_state == TRUST_STATE_EXACT or self.replay != "whole")
                and rank.HasField("silent_seconds")
                and rank.silent_seconds < silence  # every pod is alive
                for faulty, rank in zip(self.engines, ranks, strict=True)
            ):
                return
            if time.monotonic() > deadline:
                wanted = {f.engine.name: len(f.engine.frames) - 1 for f in self.engines}
                raise TimeoutError(f"{replica.name}: {wanted}, still {pods}")
            await asyncio.sleep(0.02)

    def describe(self) -> str:
        return (
            f"seed {self.seed} {self.kind} copy={self.copy_blocks} replay={self.replay} "
            f"{dict(self.happened)} refused={dict(self.refused)}"
        )


def _report(schedule: Schedule) -> None:
    """Append what happened in the schedule to the file that FAULTS_REPORT names."""
    report = os.environ.get("FAULTS_REPORT")
    if not report:
        return
    answers = {TrustState.Name(state): count for state, count in schedule.states.items()}
    line = {"seed": schedule.seed, "faults": schedule.happened, "answers": answers}
    with Path(report).open("a") as file:
        file.write(json.dumps({**line, "refused": schedule.refused}) + "\n")


async def run(seed: int, faultless: bool = False) -> Schedule:
    schedule = Schedule(seed, faultless)
    program, _, _ = schedule.kind.partition(" ")
    if server_program(program) is None:
        pytest.skip(f"there is no {program}-server on this machine")
    await schedule.run()
    _report(schedule)
    return schedule


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_replica_calls_a_score_certain_that_the_engine_contradicts(seed: int) -> None:
    await run(seed)


@pytest.mark.parametrize("seed", [100, 101, 102])
async def test_without_faults_replicas_are_exact_all_the_time(seed: int) -> None:
    schedule = await run(seed, faultless=True)
    assert schedule.states[TRUST_STATE_EXACT] > 50
    assert not schedule.refused


@pytest.mark.soak
@pytest.mark.parametrize("seed", SOAK_SEEDS)
async def test_no_replica_in_many_fault_schedules_calls_a_wrong_score_certain(seed: int) -> None:
    await run(seed)
