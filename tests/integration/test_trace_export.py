"""A collector that hangs, refuses or is away: no call waits for it, nor does the stop."""

from __future__ import annotations

import asyncio
import ssl
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from kvatlas.v1 import scoring_pb2_grpc
from support.certificates import Authority
from support.deadlines import stretched
from support.ports import free_port
from support.services.one_pod import TOKENS, score_request
from support.services.otlp import Collected, otlp_collector
from support.services.running import RunningService, local_configuration, running_service

from service.config import ConfigurationError
from service.tracing.collector import Collector, CollectorError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCORE = "kvatlas.v1.ScoringService/Score"
MODELS = [{"name": "sim/model"}]


@pytest.fixture
def collected() -> Iterator[Collected]:
    with otlp_collector() as collector:
        yield collector


def configured(endpoint: str, **traces: Any) -> Any:
    traces = {"endpoint": endpoint, "sample_ratio": 1.0, "interval_seconds": 0.01, **traces}
    return local_configuration(traces=traces, models=MODELS, log={"level": "info"})


async def score(service: RunningService, times: int = 1) -> float:
    """Ask so often; return the seconds of the slowest answer."""
    stub: Any = scoring_pb2_grpc.ScoringServiceStub(service.channel)
    slowest = 0.0
    for _ in range(times):
        began = time.perf_counter()
        await stub.Score(score_request(TOKENS))
        slowest = max(slowest, time.perf_counter() - began)
    return slowest


def counts(service: RunningService) -> Any:
    tracer: Any = service.application._servers._served.tracer
    return tracer._queue.counts


async def until_dropped(service: RunningService, reason: str, spans: int) -> None:
    async with asyncio.timeout(60):
        while counts(service).dropped[reason] < spans:
            await score(service)


async def until_exported(service: RunningService) -> None:
    async with asyncio.timeout(60):
        while not counts(service).exported:
            await score(service)


async def test_a_collector_that_hangs_delays_no_call_and_no_stop(collected: Collected) -> None:
    collected.hangs.set()
    limits = {"timeout_seconds": 60, "queue_spans": 10, "batch_spans": 4, "stop_seconds": 0.2}
    async with running_service(configured(collected.url, **limits)) as service:
        await score(service)
        await collected.until(lambda got: got.requests == 1)
        assert await score(service, 20) < stretched(1.0)
        dropped = counts(service).dropped
        assert counts(service).waiting == 10
        assert dropped["queue_full"] > 10
        began = time.perf_counter()
    assert time.perf_counter() - began < stretched(3.0)
    assert dropped["stopped"] == 10


async def test_a_collector_that_is_too_slow_is_given_up(collected: Collected) -> None:
    collected.hangs.set()
    async with running_service(configured(collected.url, timeout_seconds=0.05)) as service:
        await until_dropped(service, "timeout", 1)
        assert collected.requests >= 3


async def test_a_collector_that_trickles_is_too_slow() -> None:
    ended = asyncio.Event()

    async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(b"H")
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            writer.close()
            ended.set()

    server = await asyncio.start_server(trickle, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    collector = Collector(configured(url, timeout_seconds=0.2).traces)
    async with server:
        with pytest.raises(CollectorError) as caught:
            await asyncio.to_thread(collector.send, [])
        await ended.wait()
    assert (caught.value.reason, caught.value.passes) == ("timeout", True)


async def test_a_collector_that_is_away_is_logged_once_and_found_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.tracing.span_queue._FIRST_PAUSE", 0.01)
    monkeypatch.setattr("service.tracing.span_queue._LONGEST_PAUSE", 0.01)
    port = free_port()
    async with running_service(configured(f"http://127.0.0.1:{port}")) as service:
        await until_dropped(service, "unreachable", 8)
        with otlp_collector(port) as collected:
            await score(service)
            await collected.named(SCORE)
            await until_exported(service)
            printed = capsys.readouterr()
    assert (printed.out + printed.err).count("traces_failing") == 1
    assert (printed.out + printed.err).count("traces_exported_again") == 1


@pytest.mark.parametrize(("status", "tries"), [(500, 1), (302, 1), (503, 3)])
async def test_a_collector_that_refuses_is_asked_again_only_if_that_may_pass(
    collected: Collected, monkeypatch: pytest.MonkeyPatch, status: int, tries: int
) -> None:
    monkeypatch.setattr("service.tracing.span_queue._FIRST_PAUSE", 0.01)
    collected.status = status
    # One batch: the interval is long.
    settings = configured(collected.url, interval_seconds=60, batch_spans=4)
    async with running_service(settings) as service:
        await score(service)  # four spans
        async with asyncio.timeout(60):
            while not counts(service).dropped["refused"]:
                await collected.until(lambda got: got.requests == tries)
                await asyncio.sleep(0)
        assert counts(service).dropped == {"refused": 4}
        assert collected.requests == tries
        collected.status, collected.rejects = 200, 1
        await score(service)
        await until_exported(service)
        assert counts(service).dropped["rejected"] == 1
        assert counts(service).dropped["refused"] == 4


async def test_what_waits_is_sent_at_the_stop(collected: Collected) -> None:
    async with running_service(configured(collected.url, interval_seconds=60)) as service:
        await score(service)
    assert SCORE in {span.name for span in collected.spans}


async def test_a_collector_with_tls_is_known_by_its_authority(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path, "authority"), Authority(tmp_path, "stranger")
    authority.issue(tmp_path / "chain", tmp_path / "key")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "chain", tmp_path / "key")
    with otlp_collector(tls=tls) as collected:
        settings = configured(collected.url, ca_file=str(authority.file), interval_seconds=60)
        async with running_service(settings) as service:
            await score(service)
        assert SCORE in {span.name for span in collected.spans}
        collector = Collector(configured(collected.url, ca_file=str(stranger.file)).traces)
        with pytest.raises(CollectorError, match="CERTIFICATE_VERIFY_FAILED") as caught:
            await asyncio.to_thread(collector.send, [])
    assert caught.value.reason == "unreachable"


async def test_opentelemetry_is_not_imported_unless_traces_are_configured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = (
        "import asyncio, sys; from service.application import Application;"
        "from service.config.configuration import load\n"
        "async def main():\n"
        "    here = {'listen': ['127.0.0.1:0']}\n"
        "    async with Application(load(None, {'grpc': here, 'admin': here,"
        " 'metrics': {'listen': ''}})): pass\n"
        "asyncio.run(main())\n"
        # redis imports the metrics of OpenTelemetry if they are installed.
        "ours = ('opentelemetry.sdk.trace', 'opentelemetry.exporter', 'service.tracing')\n"
        "print([name for name in sys.modules if name.startswith(ours)])"
    )
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, cwd=tmp_path
    )
    printed, _ = await asyncio.wait_for(process.communicate(), 60)
    assert printed.splitlines()[-1] == b"[]"


@pytest.mark.parametrize(
    ("traces", "fault"),
    [
        ({"endpoint": "collector:4317"}, "is not http://host:port"),
        ({"endpoint": "http://me:secret@collector"}, "belong into a file"),
        ({"endpoint": "http://collector/?key=1"}, "more than an address"),
        ({"token_file": "/nowhere"}, "cannot be read"),
        ({"sample_ratio": 2}, "less than or equal to 1"),
    ],
)
def test_what_is_wrong_with_the_settings_is_said(traces: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault) as caught:
        local_configuration(traces=traces)
    assert "secret" not in str(caught.value)


def test_a_malformed_header_is_refused_without_showing_it(tmp_path: Path) -> None:
    (tmp_path / "headers").write_text("a: b\nsecret\n")
    with pytest.raises(ConfigurationError, match="line 2 is no header") as caught:
        local_configuration(traces={"headers_file": str(tmp_path / "headers")})
    assert "secret" not in str(caught.value)


def test_traces_without_the_extra_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> None:
        raise ModuleNotFoundError

    monkeypatch.setattr("service.config.sections.find_spec", missing)
    with pytest.raises(ConfigurationError, match=r"pip install 'kvatlas\[traces\]'"):
        local_configuration(traces={"endpoint": "http://127.0.0.1:4318"})
