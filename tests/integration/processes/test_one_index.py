"""`kvatlas serve --processes`: several processes answer as one, from one index."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import grpc
import pytest
import zmq
from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc, scoring_pb2_grpc, trust_pb2
from support.deadlines import DEADLINE_SECONDS
from support.engines.publisher import Publisher
from support.processes import (
    Processes,
    channels,
    descendants,
    wait_until,
)
from support.services.one_pod import MODEL, POD, TOKENS, block_stored, frame, score_request
from support.services.process import KVATLAS_COMMAND

from service.cli.calling.measures import process_measures


async def until_known(
    channel: grpc.aio.Channel, tokens: list[int] = TOKENS, state: int = trust_pb2.TRUST_STATE_EXACT
) -> None:
    """Wait until the process behind a channel has the pod's blocks of a prompt."""
    score = scoring_pb2_grpc.ScoringServiceStub(channel).Score
    answer = None
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                with suppress(grpc.aio.AioRpcError):  # not known yet, or between two processes
                    answer = await score(score_request(tokens), timeout=DEADLINE_SECONDS)
                    found = [(pod.pod, pod.matched_blocks, pod.trust_state) for pod in answer.pods]
                    if found == [(POD, len(tokens) // 16, state)]:
                        return
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"the last answer is {answer}") from None


async def knowing(
    stack: AsyncExitStack, service: Processes, pod: Publisher, count: int
) -> list[grpc.aio.Channel]:
    """Channels to processes that know the pod's first blocks."""
    pod.send(frame(0, block_stored(TOKENS)))
    made = await channels(stack, service.address, count)
    for channel in made:
        await until_known(channel)
    return made


@pytest.fixture
async def pod(service: Processes) -> AsyncIterator[Publisher]:
    with zmq.Context() as context:
        publisher = Publisher(context, connect=service.events)
        await publisher.until_subscribed()
        yield publisher
        publisher.close()


async def test_every_process_answers_from_one_index(
    service: Processes, pod: Publisher, stack: AsyncExitStack
) -> None:
    made = await knowing(stack, service, pod, 6)
    before = [service.calls(process) for process in range(2)]
    assert all(before)
    for channel in made:
        score = scoring_pb2_grpc.ScoringServiceStub(channel).Score
        for _ in range(10):
            answer = await score(score_request(TOKENS), timeout=DEADLINE_SECONDS)
            assert answer.pods[0].matched_blocks == 4
            assert answer.pods[0].trust_state == trust_pb2.TRUST_STATE_EXACT
    ports = [int(str(e["metrics_port"])) for e in service.log if e["event"] == "serving"]
    measures = [process_measures(f"127.0.0.1:{port}", DEADLINE_SECONDS) for port in ports]
    assert [each.processes for each in measures] == [2, 2]
    # Each process has half of the connections.
    after = [service.calls(process) for process in range(2)]
    assert [now - then for now, then in zip(after, before, strict=True)] == [30, 30]


@pytest.mark.parametrize("number", [0, 1], ids=["that hears the pod", "that copies"])
async def test_a_process_that_is_killed_is_started_again(
    service: Processes, pod: Publisher, stack: AsyncExitStack, number: int
) -> None:
    made = await knowing(stack, service, pod, 2)
    pid = service.pids()[number]
    os.kill(pid, signal.SIGKILL)
    (fresh,) = await channels(stack, service.address, 1)
    answer = await scoring_pb2_grpc.ScoringServiceStub(fresh).Score(
        score_request(TOKENS), timeout=DEADLINE_SECONDS
    )
    assert [each.pod for each in answer.pods] == [POD]  # there is always who answers
    await asyncio.to_thread(service.until, lambda: service.pids()[number] != pid)
    await asyncio.to_thread(service.until, lambda: _serves(service, number))
    # What is published from now on is known to all, and nothing has been left behind. Events may
    # have been lost where nobody has heard the pod for a while, and it has no replay socket.
    state = trust_pb2.TRUST_STATE_EXACT if number else trust_pb2.TRUST_STATE_DEGRADED
    pod.send(frame(1, block_stored(list(range(64)), 100)))
    for channel in [*made, *await channels(stack, service.address, 2)]:
        await until_known(channel, list(range(64)), state)
        await until_known(channel, state=state)
    ended = [line for line in service.log if line["event"] == "process_ended"]
    assert [(line["process"], line["status"]) for line in ended] == [(number, -9)]
    restarts = [service.metric(n, "kvatlas_process_restarts_total") for n in range(2)]
    assert restarts == [float(n == number) for n in range(2)]


def _serves(service: Processes, number: int) -> bool:
    """Whether a process has said that it serves, since it was last started."""
    last = [
        line["event"]
        for line in service.log
        if line.get("process") == number and line["event"] in {"serving", "process_started"}
    ]
    return last[-1] == "serving"


async def test_an_operator_reaches_the_first_process_that_is_ready(
    service: Processes, pod: Publisher, stack: AsyncExitStack
) -> None:
    async def replica(channel: grpc.aio.Channel) -> str:
        answer = await fleet_pb2_grpc.FleetServiceStub(channel).ListPods(
            fleet_pb2.ListPodsRequest(), timeout=DEADLINE_SECONDS
        )
        return str(answer.shared_index.replica)

    pod.send(frame(0, block_stored(TOKENS)))
    for channel in await channels(stack, service.admin, 3):
        assert (await replica(channel)).endswith("-0")
    os.kill(service.pids()[0], signal.SIGKILL)
    (channel,) = await channels(stack, service.admin, 1)
    assert (await replica(channel)).endswith("-1")


async def test_a_process_that_starts_again_has_the_configuration_of_the_others(
    tmp_path: Path,
) -> None:
    file = tmp_path / "kvatlas.toml"
    file.write_text("[index]\nblock_size = 32\n")
    service = await asyncio.to_thread(Processes, "--config", str(file))
    file.write_text("this is no configuration")
    pid = service.pids()[1]
    os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(service.until, lambda: service.pids()[1] != pid)
    await asyncio.to_thread(service.until, lambda: _serves(service, 1))
    await asyncio.to_thread(service.stop)


async def test_a_store_of_their_own_that_ends_is_started_again_and_written_anew(
    service: Processes, pod: Publisher, stack: AsyncExitStack
) -> None:
    made = await knowing(stack, service, pod, 2)
    (store,) = (
        pid for pid, name in descendants(service.process.pid).items() if name.endswith("-server")
    )
    os.kill(store, signal.SIGKILL)
    for channel in made:  # from memory, meanwhile
        await until_known(channel)
    await asyncio.to_thread(service.until_logged, "private_store_ended")
    pod.send(frame(1, block_stored(list(range(64)), 100)))
    for channel in made:
        await until_known(channel, list(range(64)))
        await until_known(channel)


async def test_processes_answer_at_a_path_that_goes_with_them(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    path = tmp_path / "kvatlas.sock"
    config = tmp_path / "kvatlas.toml"
    config.write_text(f'[grpc]\nlisten = ["unix:{path}"]\n')
    command = [
        *KVATLAS_COMMAND,
        *("serve", f"--config={config}", "--processes=2", "--admin-listen=127.0.0.1:0"),
        *("--metrics-listen=", "--log-format=json"),
    ]
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
    await asyncio.to_thread(wait_until, path.exists)
    for channel in await channels(stack, f"unix:{path}", 2):
        code = (
            await scoring_pb2_grpc.ScoringServiceStub(channel)
            .Score(score_request(TOKENS, model=MODEL), timeout=DEADLINE_SECONDS)
            .code()
        )
        assert code == grpc.StatusCode.NOT_FOUND
    process.terminate()
    assert await asyncio.wait_for(process.wait(), DEADLINE_SECONDS) == 0
    assert not path.exists()
