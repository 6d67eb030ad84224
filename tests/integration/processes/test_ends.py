"""Several processes end together, and leave nothing, whoever ends them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from kvatlas.v1 import scoring_pb2_grpc
from support.deadlines import DEADLINE_SECONDS
from support.processes import (
    Processes,
    channels,
    descendants,
    is_alive,
    until_dead,
    wait_until,
)
from support.services.one_pod import TOKENS, score_request
from support.services.process import KVATLAS_COMMAND


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_all_processes_and_the_store_of_their_own(
    service: Processes, stack: AsyncExitStack, number: int
) -> None:
    pids = descendants(service.process.pid)
    assert len(pids) == 3  # with the store
    status, rest = await asyncio.to_thread(service.stop, number)
    assert status == 0
    assert rest.count('"stopped"') == 2
    await until_dead(pids)


async def test_a_signal_to_all_processes_at_once_lets_each_drain() -> None:
    service = await asyncio.to_thread(Processes, lame_duck_seconds="0.5")
    for pid in service.pids().values():
        os.kill(pid, signal.SIGTERM)
    status, rest = await asyncio.to_thread(service.stop)
    assert status == 0
    assert rest.count('"stopped"') == 2
    assert "second signal" not in rest


async def test_no_call_fails_while_the_service_stops(stack: AsyncExitStack) -> None:
    service = await asyncio.to_thread(Processes, lame_duck_seconds="0.5")
    made = await channels(stack, service.address, 4)
    outcomes, gone_at = [], []

    async def call(channel: grpc.aio.Channel) -> None:
        score = scoring_pb2_grpc.ScoringServiceStub(channel).Score
        while True:
            code = await score(score_request(TOKENS), timeout=DEADLINE_SECONDS).code()
            if code == grpc.StatusCode.UNAVAILABLE:
                gone_at.append(time.monotonic())  # the service has gone
                return
            outcomes.append(code)

    calls = asyncio.gather(*map(call, made))
    told_at = time.monotonic()
    status, _ = await asyncio.to_thread(service.stop)
    await calls
    assert status == 0
    assert set(outcomes) == {grpc.StatusCode.NOT_FOUND}  # no pod has this model
    assert len(outcomes) > 100
    assert min(gone_at) >= told_at + 0.5  # not before the lame duck has ended


@pytest.mark.parametrize("seconds", [0.0, 0.005, 0.01, 0.02])
def test_a_signal_while_the_store_starts_ends_everything(seconds: float) -> None:
    command = [*KVATLAS_COMMAND, "serve", "--processes=2", "--listen=127.0.0.1:0"]
    with subprocess.Popen(
        [*command, "--admin-listen=", "--metrics-listen="], stderr=subprocess.PIPE, text=True
    ) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_until(lambda: bool(children.read_text()))
        time.sleep(seconds)
        process.terminate()
        try:
            _, says = process.communicate(timeout=DEADLINE_SECONDS)
        finally:
            process.kill()
    assert process.returncode in {0, 128 + signal.SIGTERM}
    assert "Traceback" not in says


async def test_a_second_signal_ends_everything_at_once() -> None:
    service = await asyncio.to_thread(Processes, lame_duck_seconds="600")
    pids = list(service.pids().values())
    service.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(service.until_logged, "lame_duck")
    status, _ = await asyncio.to_thread(service.stop)
    assert status == 128 + signal.SIGTERM
    await until_dead(pids)


async def test_processes_end_when_the_supervisor_is_killed(service: Processes) -> None:
    pids = descendants(service.process.pid)
    assert len(pids) == 3
    service.process.kill()
    await until_dead(pids)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--listen=127.0.0.1:{taken}"], "cannot start: grpc.listen: cannot bind 127.0.0.1:"),
        (["--metrics-listen=127.0.0.1:{taken}"], "cannot start: metrics.listen: cannot bind"),
    ],
)
def test_what_cannot_start_says_why_and_leaves_nothing(arguments: list[str], says: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [
            *KVATLAS_COMMAND,
            *("serve", "--processes=2", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"),
            *("--metrics-listen=", "--log-format=json"),
            *(argument.format(taken=port) for argument in arguments),
        ]
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
        )
    assert ended.returncode == 1
    assert says in ended.stderr
    pids = [json.loads(line)["pid"] for line in ended.stderr.splitlines() if '"pid"' in line]
    assert not any(map(is_alive, pids))


def test_a_process_that_cannot_start_ends_those_that_have() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [
            *(*KVATLAS_COMMAND, "serve", "--processes=2", "--listen=127.0.0.1:0"),
            *("--admin-listen=", f"--metrics-listen=127.0.0.1:{taken.getsockname()[1]}"),
            "--log-format=json",
        ]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if '"process_started"' in line and '"process": 0' in line:
                    pid = json.loads(line)["pid"]
                    os.kill(pid, signal.SIGSTOP)  # the other one is faster
                if '"serving"' in line:
                    os.kill(pid, signal.SIGCONT)
            assert process.wait(DEADLINE_SECONDS) == 1


def test_a_signal_ends_a_process_that_does_not_wait_for_signals_yet() -> None:
    command = [
        *(*KVATLAS_COMMAND, "serve", "--processes=2", "--listen=127.0.0.1:0"),
        *("--admin-listen=", "--metrics-listen=", "--log-format=json"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if '"process_started"' in line and '"process": 0' in line:
                pid = json.loads(line)["pid"]
                os.kill(pid, signal.SIGSTOP)
            if '"serving"' in line:
                process.terminate()
            if '"stopped"' in line:  # the other one
                os.kill(pid, signal.SIGCONT)
        assert process.wait(DEADLINE_SECONDS) == 0


async def test_processes_that_start_end_when_the_supervisor_is_killed() -> None:
    command = [
        *(*KVATLAS_COMMAND, "serve", "--processes=2", "--listen=127.0.0.1:0"),
        *("--admin-listen=", "--metrics-listen=", "--log-format=json"),
    ]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    pids: list[int] = []
    while len(pids) < 2:
        line = json.loads(await process.stderr.readline())
        if line["event"] == "process_started":
            pids.append(line["pid"])
    process.kill()
    rest = await process.stderr.read()  # until nobody can write any more
    await process.wait()
    await until_dead(pids)
    assert rest.count(b"supervisor_lost") == 2
