"""How the service stops: what its callers see, and what a signal does when."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc, scoring_pb2, scoring_pb2_grpc
from support.deadlines import DEADLINE_SECONDS
from support.services.one_pod import MODEL, score_request
from support.services.process import KVATLAS_COMMAND, PYTHON, ServiceProcess
from support.services.running import local_configuration

from service.application import Application
from service.listening import ListenerDiedError
from service.listening.grpcio import GrpcioTransport

RETRIES = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
)


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "kvatlas.toml"
    file.write_text(f'[[models]]\nname = "{MODEL}"\n')
    return str(file)


class Callers:
    """Clients that call on one channel without a pause, and what their calls came to."""

    def __init__(self, channel: grpc.aio.Channel, count: int) -> None:
        self.outcomes: Counter[grpc.StatusCode] = Counter()
        self._answered = asyncio.Event()
        self._is_ending = False
        self._score = scoring_pb2_grpc.ScoringServiceStub(channel).Score
        self._tasks = [asyncio.create_task(self._call()) for _ in range(count)]

    async def _call(self) -> None:
        while not self._is_ending:
            call = self._score(score_request(list(range(64))), timeout=DEADLINE_SECONDS)
            self.outcomes[await call.code()] += 1
            self._answered.set()

    async def until_answered(self, more: int) -> None:
        """Wait until so many more calls have been answered."""
        wanted = self.outcomes[grpc.StatusCode.OK] + more
        async with asyncio.timeout(DEADLINE_SECONDS):
            while self.outcomes[grpc.StatusCode.OK] < wanted:
                self._answered.clear()
                await self._answered.wait()

    async def end(self) -> None:
        """Wait for the last calls: a cancelled one reports to its loop after that has closed."""
        self._is_ending = True
        await asyncio.gather(*self._tasks)


async def test_callers_that_retry_do_not_notice_that_services_stop(config: str) -> None:
    services = [await asyncio.to_thread(ServiceProcess, "--config", config) for _ in range(3)]
    target = "ipv4:" + ",".join(service.address for service in services)
    options = [("grpc.service_config", RETRIES)]
    async with grpc.aio.insecure_channel(target, options) as channel:
        callers = Callers(channel, 16)
        for service in services[:2]:
            await callers.until_answered(500)
            status, _ = await asyncio.to_thread(service.stop)
            assert status == 0
        await callers.until_answered(500)
        await callers.end()
    await asyncio.to_thread(services[2].stop)
    assert set(callers.outcomes) == {grpc.StatusCode.OK}


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_no_call_ends_as_cancelled_when_the_service_stops(
    config: str, tmp_path: Path, kind: str
) -> None:
    listen = "127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path}/kvatlas.sock"
    configuration = local_configuration(grpc={"listen": [listen]}, models=[{"name": MODEL}])
    for _ in range(5):
        async with Application(configuration) as application:
            channel = grpc.aio.insecure_channel(application.addresses[0])
            callers = Callers(channel, 8)
            await callers.until_answered(100)
        await callers.end()
        await channel.close()
        assert set(callers.outcomes) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}


async def test_streams_end_at_once_as_unavailable(config: str) -> None:
    service = await asyncio.to_thread(ServiceProcess, "--config", config)
    async with (
        grpc.aio.insecure_channel(service.admin) as admin,
        grpc.aio.insecure_channel(service.address) as channel,
    ):
        recording = fleet_pb2_grpc.FleetServiceStub(admin).RecordFrames(
            fleet_pb2.RecordFramesRequest()
        )
        await recording.initial_metadata()
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        status, log = await asyncio.to_thread(service.stop)
        assert status == 0
        assert await recording.code() is grpc.StatusCode.UNAVAILABLE
        assert "stopping" in await recording.details()
        with pytest.raises(grpc.RpcError):
            await read_all(watch)
        assert await watch.code() is grpc.StatusCode.UNAVAILABLE
    entries = {entry["event"]: entry for entry in map(json.loads, log.splitlines())}
    assert "stopped" in entries


async def read_all(stream: Any) -> None:
    while True:
        await stream.read()


async def until_refused(address: str) -> None:
    """Wait until nobody can connect there any more."""
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                return
            writer.close()
            await writer.wait_closed()


async def test_a_call_in_progress_is_answered_and_one_that_takes_too_long_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The drain is 0.3 s; the calls are held by a lookup that a test ends, or does not."""
    released, entered = asyncio.Event(), asyncio.Event()
    names = iter(["answered", "held"])

    async def held(self: object, request: Any, context: Any) -> Any:
        name = next(names)
        entered.set()
        await (released if name == "answered" else asyncio.Event()).wait()
        return scoring_pb2.ScoreResponse()

    monkeypatch.setattr("service.rpc.scoring.ScoringServicer.Score", held)
    configuration = local_configuration(grpc={"listen": ["127.0.0.1:0"], "drain_seconds": 0.3})
    application = Application(configuration)
    await application.__aenter__()
    async with grpc.aio.insecure_channel(application.addresses[0]) as channel:
        stub = scoring_pb2_grpc.ScoringServiceStub(channel)
        calls = []
        for _ in range(2):
            entered.clear()
            calls.append(stub.Score(score_request([1])))
            await entered.wait()
        stopping = asyncio.create_task(application.__aexit__(None, None, None))
        await until_refused(application.addresses[0])
        late = stub.Score(score_request([1]))
        assert await late.code() is grpc.StatusCode.UNAVAILABLE
        released.set()
        assert await calls[0].code() is grpc.StatusCode.OK
        assert await calls[1].code() is grpc.StatusCode.UNAVAILABLE
        assert "stopping" in await calls[1].details()
        await stopping


async def test_a_lame_duck_is_not_ready_but_answers(config: str) -> None:
    configuration = local_configuration(
        grpc={"listen": ["127.0.0.1:0"], "lame_duck_seconds": 600}, models=[{"name": MODEL}]
    )
    async with (
        Application(configuration) as application,
        grpc.aio.insecure_channel(application.addresses[0]) as channel,
    ):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        duck = asyncio.create_task(application.become_lame_duck())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        scoring = scoring_pb2_grpc.ScoringServiceStub(channel)
        assert await scoring.Score(score_request([1])).code() is grpc.StatusCode.OK
        duck.cancel()


async def test_a_watcher_that_reads_nothing_keeps_nobody_waiting() -> None:
    """Its window is 0 bytes: nothing can be written to it."""
    settings = b"\0\4" + bytes(4)  # SETTINGS_INITIAL_WINDOW_SIZE = 0
    path = b"/grpc.health.v1.Health/Watch"
    headers = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path,
        b":authority": b"x",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
    }
    block = b"".join(
        b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
        for name, value in headers.items()
    )

    def framed(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
        return head + stream.to_bytes(4, "big") + payload

    async with asyncio.timeout(DEADLINE_SECONDS):
        async with Application(local_configuration()) as application:
            host, _, port = application.addresses[0].rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + framed(4, 0, 0, settings))
            writer.write(framed(1, 4, 1, block) + framed(0, 1, 1, bytes(5)))
            await reader.readuntil(b"application/grpc")  # its headers: the watch has begun
            async with grpc.aio.insecure_channel(application.addresses[0]) as channel:
                stub: Any = health_pb2_grpc.HealthStub(channel)
                answer = await stub.Check(health_pb2.HealthCheckRequest())
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
        writer.close()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_service_at_once(second: signal.Signals) -> None:
    service = ServiceProcess(lame_duck_seconds="3600")
    service.process.send_signal(signal.SIGTERM)
    service.until_logged("lame_duck")
    status, rest = service.stop(second)
    assert status == 128 + second
    assert rest == "kvatlas: ended at once by a second signal\n"


def test_children_are_killed_with_the_process() -> None:
    script = (
        "import subprocess; from service.cli.interruption import kill_children\n"
        "child = subprocess.Popen(['sleep', '600']); kill_children(); print(child.wait())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "-9\n"


async def test_a_listener_that_dies_is_noticed() -> None:
    grpc_section = {"listen": ["127.0.0.1:0"], "transport": "grpcio"}
    async with Application(local_configuration(grpc=grpc_section)) as application:
        watching = asyncio.create_task(application.until_a_listener_dies())
        transport = application._servers._admin._transport
        assert isinstance(transport, GrpcioTransport)
        await transport._server.stop(None)
        with pytest.raises(ListenerDiedError, match=r"the listener of \[admin\] died"):
            await watching


def started(*arguments: str, **more: Any) -> subprocess.Popen[str]:
    """Start Python; SIGINT interrupts it, also where these tests run in the background."""
    return subprocess.Popen(
        [*PYTHON, *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        **more,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_service_waits_for_its_store_ends_it_cleanly(
    number: signal.Signals,
) -> None:
    """The store accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as store:
        port = store.getsockname()[1]
        process = started(
            *KVATLAS_COMMAND[len(PYTHON) :],
            *("serve", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--metrics-listen="),
            f"--index=redis://127.0.0.1:{port}",
        )
        store.settimeout(DEADLINE_SECONDS)
        connection, _ = store.accept()
        with connection:
            process.send_signal(number)
            _, said = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0
    assert "stopped before it was serving" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("imported", ["google.protobuf.message", "grpc"])
def test_a_signal_while_a_command_is_imported_ends_it_without_a_traceback(
    number: signal.Signals, imported: str
) -> None:
    process = started("-X", "importtime", *KVATLAS_COMMAND[len(PYTHON) :], "demo")
    assert process.stderr is not None
    for line in process.stderr:
        if re.search(rf"\| +{re.escape(imported)}$", line):
            break
    process.send_signal(number)
    _, said = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 128 + number
    assert "Traceback" not in said


IGNORED = """
import asyncio, os, signal, sys, weakref
import service.cli.main
from service.cli import entry
from service.cli.serving.signals import run_until_signalled

class Thing: pass

def run():
    thing = Thing()
    _ref = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.{number}))
    del thing
    return 1

async def wait():
    run()
    await asyncio.sleep({deadline})
    return 1

service.cli.main.main = {main}
sys.exit(entry.main())
"""
"""A command that gets a signal where Python ignores what the signal's handler raises."""


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("main", ["run", "lambda: run_until_signalled(wait())"])
def test_a_signal_ends_a_command_also_where_exceptions_are_ignored(number: str, main: str) -> None:
    script = IGNORED.format(number=number, main=main, deadline=DEADLINE_SECONDS)
    process = started("-c", script)
    _, said = process.communicate(timeout=DEADLINE_SECONDS / 2)
    assert (process.returncode, said) == (128 + signal.Signals[number], "")
