"""`kvatlas serve --processes`: several processes answer as one service."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import grpc
import pytest
import zmq
from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc, scoring_pb2_grpc, trust_pb2
from support.deadlines import DEADLINE_SECONDS
from support.engines.publisher import Publisher
from support.ports import free_port
from support.services.one_pod import MODEL, POD, TOKENS, block_stored, frame, score_request
from support.services.process import KVATLAS_COMMAND, ServiceProcess

from service.cli.calling.measures import process_measures

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


@pytest.fixture
async def service(request: pytest.FixtureRequest) -> AsyncIterator[Processes]:
    running = await asyncio.to_thread(Processes, *getattr(request, "param", ()))
    yield running
    await asyncio.to_thread(running.stop)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def channels(stack: AsyncExitStack, address: str, count: int) -> list[grpc.aio.Channel]:
    """Channels that have connected, one after the other."""
    made = []
    for _ in range(count):
        channel = grpc.aio.insecure_channel(address, ALONE)
        made.append(await stack.enter_async_context(channel))
        async with asyncio.timeout(DEADLINE_SECONDS):
            await channel.channel_ready()
    return made


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
