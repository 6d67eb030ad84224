"""Two listeners: one for those who ask, one for those who operate, each with its credentials."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import struct
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc, scoring_pb2_grpc
from support.certificates import Authority
from support.deadlines import DEADLINE_SECONDS
from support.services.one_pod import score_request
from support.services.running import local_configuration, running_service

from service.application import Application
from service.cli.main import main
from service.config import load

LIST = fleet_pb2.ListPodsRequest()


@pytest.fixture(autouse=True, params=["http2", "grpcio"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test of this file runs over each transport."""
    monkeypatch.setenv("KVATLAS_GRPC__TRANSPORT", request.param)
    return str(request.param)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
def pair(tmp_path: Path, authority: Authority) -> dict[str, str]:
    """The settings of a certificate and its key."""
    chain, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    authority.issue(chain, key)
    return {"certificate_file": str(chain), "key_file": str(key)}


@asynccontextmanager
async def administered(**admin: Any) -> AsyncIterator[Application]:
    """A service whose administration has these settings."""
    section = {"listen": ["127.0.0.1:0"], **admin}
    async with Application(local_configuration(admin=section)) as application:
        yield application


def credentials(authority: Path, pair: dict[str, str] | None = None) -> grpc.ChannelCredentials:
    """What a client shows, and whom it believes."""
    files = (pair["key_file"], pair["certificate_file"]) if pair else ()
    return grpc.ssl_channel_credentials(
        authority.read_bytes(), *(Path(file).read_bytes() for file in files)
    )


async def status(
    address: str, shown: grpc.ChannelCredentials | None = None, token: str = ""
) -> grpc.StatusCode:
    """How a call to the administration ends, on a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    async with (
        grpc.aio.insecure_channel(address, options)
        if shown is None
        else grpc.aio.secure_channel(address, shown, options)
    ) as channel:
        call = fleet_pb2_grpc.FleetServiceStub(channel).ListPods(
            LIST, timeout=DEADLINE_SECONDS, metadata=metadata
        )
        return await call.code()  # type: ignore[no-any-return]


async def until(wanted: grpc.StatusCode, address: str, *shown: Any) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await status(address, *shown) != wanted:
            pass


async def test_whoever_asks_for_scores_cannot_administer_and_the_other_way_round() -> None:
    async with running_service(local_configuration()) as service:
        for call in (
            fleet_pb2_grpc.FleetServiceStub(service.channel).ListPods(LIST),
            scoring_pb2_grpc.ScoringServiceStub(service.admin).Score(score_request([1])),
        ):
            assert await call.code() == grpc.StatusCode.UNIMPLEMENTED
        recording = fleet_pb2_grpc.FleetServiceStub(service.channel).RecordFrames(
            fleet_pb2.RecordFramesRequest()
        )
        assert await recording.code() == grpc.StatusCode.UNIMPLEMENTED
        for channel, name in (
            (service.channel, "kvatlas.v1.ScoringService"),
            (service.admin, "kvatlas.v1.FleetService"),
        ):
            health: Any = health_pb2_grpc.HealthStub(channel)
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        unknown = health_pb2.HealthCheckRequest(service="kvatlas.v1.FleetService")
        other: Any = health_pb2_grpc.HealthStub(service.channel)
        assert await other.Check(unknown).code() == grpc.StatusCode.NOT_FOUND


async def test_the_administration_may_be_left_out_or_be_a_unix_socket(tmp_path: Path) -> None:
    async with administered(listen=[]) as application:
        assert application.admin_addresses == []
    address = f"unix:{tmp_path}/admin.sock"
    async with administered(listen=[address]):
        assert await status(address) == grpc.StatusCode.OK


async def test_a_listener_with_a_certificate_speaks_tls_and_no_plain_text(
    authority: Authority, pair: dict[str, str], tmp_path: Path
) -> None:
    async with administered(**pair) as application:
        (address,) = application.admin_addresses
        assert await status(address, credentials(authority.file)) == grpc.StatusCode.OK
        assert await status(address) == grpc.StatusCode.UNAVAILABLE
        other = Authority(tmp_path, "other")
        assert await status(address, credentials(other.file)) == grpc.StatusCode.UNAVAILABLE


async def test_a_new_certificate_is_used_without_a_restart_and_a_broken_one_is_not(
    authority: Authority, pair: dict[str, str], tmp_path: Path
) -> None:
    other, chain = Authority(tmp_path, "other"), Path(pair["certificate_file"])
    with structlog.testing.capture_logs() as log:
        async with administered(**pair) as application:
            (address,) = application.admin_addresses
            await asyncio.to_thread(chain.write_text, "half a certif")
            async with asyncio.timeout(DEADLINE_SECONDS):
                while not any(line["event"] == "credentials_unusable" for line in log):
                    assert await status(address, credentials(authority.file)) is OK
            other.issue(chain, Path(pair["key_file"]))
            await until(OK, address, credentials(other.file))
            assert await status(address, credentials(authority.file)) is UNAVAILABLE


async def test_a_client_needs_a_certificate_of_the_configured_authority(
    authority: Authority, pair: dict[str, str], tmp_path: Path
) -> None:
    clients = Authority(tmp_path, "clients")
    known = {name: str(tmp_path / f"client-{name}") for name in pair}
    clients.issue(Path(known["certificate_file"]), Path(known["key_file"]))
    async with administered(**pair, client_ca_file=str(clients.file)) as application:
        (address,) = application.admin_addresses
        assert await status(address, credentials(authority.file, known)) is OK
        assert await status(address, credentials(authority.file)) is UNAVAILABLE
        assert await status(address, credentials(authority.file, pair)) is UNAVAILABLE


OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


async def test_a_call_needs_one_of_the_tokens_in_the_file_as_it_is_now(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("# operators\none\ntwo\n")
    async with administered(token_file=str(file)) as application:
        (address,) = application.admin_addresses
        assert await status(address) is UNAUTHENTICATED
        assert await status(address, None, "three") is UNAUTHENTICATED
        assert await status(address, None, "one") is OK
        assert await status(address, None, "two") is OK
        async with grpc.aio.insecure_channel(address) as channel:  # as the probes of Kubernetes
            health: Any = health_pb2_grpc.HealthStub(channel)
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1
            recording = fleet_pb2_grpc.FleetServiceStub(channel).RecordFrames(
                fleet_pb2.RecordFramesRequest()
            )
            assert await recording.code() is UNAUTHENTICATED
        file.write_text("two\nthree\n")
        await until(OK, address, None, "three")
        assert await status(address, None, "one") is UNAUTHENTICATED
        file.unlink()
        assert await status(address, None, "two") is OK
        url = f"http://127.0.0.1:{application.metrics_port}/metrics"
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())
        count = 'kvatlas_calls_refused_total{listener="admin",reason="'
        assert f'{count}no_token"}} 2.0' in page
        (unknown,) = [line for line in page.splitlines() if f'{count}unknown_token"' in line]
        assert float(unknown.split()[-1]) >= 2


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({"listen": ["0.0.0.0:0"]}, True),
        ({"listen": ["0.0.0.0:0"], "token_file": "tokens"}, False),
        ({"listen": ["127.0.0.1:0", "[::1]:0"]}, False),
    ],
)
async def test_an_administration_that_strangers_reach_is_warned_of(
    settings: dict[str, Any], warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tokens").write_text("one\n")
    with structlog.testing.capture_logs() as log:
        async with administered(**settings):
            pass
    assert any(line["event"] == "admin_unprotected" for line in log) is warned


def literal(name: bytes, value: bytes) -> bytes:
    """A header as HPACK writes it without tables."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def http2_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + http2_frame(4, 0, 0)


async def test_a_method_name_that_is_no_text_ends_nothing() -> None:
    headers = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": b"/\xff\xfe",
        b":authority": b"x",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
    }
    block = b"".join(literal(*header) for header in headers.items())
    async with running_service(local_configuration()) as service:
        host, _, port = service.application.addresses[0].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(PREFACE + http2_frame(1, 4, 1, block) + http2_frame(0, 1, 1, bytes(5)))
        async with asyncio.timeout(DEADLINE_SECONDS):
            await reader.readuntil(b"grpc-status\x0212")  # UNIMPLEMENTED
        writer.close()
        assert await service.pods() == {}
        call = scoring_pb2_grpc.ScoringServiceStub(service.channel).Score(score_request([1]))
        assert await call.code() is grpc.StatusCode.NOT_FOUND  # no pod serves the model


def command(service: Application, capsys: pytest.CaptureFixture[str], *flags: str) -> Any:
    """What `kvatlas pods` prints, as JSON, or its complaint."""
    failed = main(["pods", "--json", *flags])
    out, err = capsys.readouterr()
    return err if failed else json.loads(out[out.index("{\n") :])["pods"]  # after log lines


async def test_commands_show_credentials_by_flag_environment_and_file(
    authority: Authority,
    pair: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("one\n")
    async with administered(
        **pair, client_ca_file=str(authority.file), token_file=str(tokens)
    ) as application:
        server = application.admin_addresses[0].replace("127.0.0.1", "localhost")
        flags = {
            "server": server,
            "ca-file": str(authority.file),
            "certificate-file": pair["certificate_file"],
            "key-file": pair["key_file"],
            "token-file": str(tokens),
        }

        async def ask(*arguments: str) -> Any:
            return await asyncio.to_thread(command, application, capsys, *arguments)

        every = [f"--{name}={value}" for name, value in flags.items()]
        assert await ask(*every) == []
        assert "UNAUTHENTICATED" in await ask(*every[:-1])
        assert "UNAVAILABLE" in await ask(every[0], "--timeout=10")
        assert "No such file" in await ask(every[0], "--ca-file=/no/such/file")
        file = tmp_path / "kvatlas.toml"
        file.write_text(
            f'[admin]\nlisten = ["{server}"]\n[client]\n'
            + "".join(
                f'{name.replace("-", "_")} = "{value}"\n'
                for name, value in flags.items()
                if name not in ("server", "token-file")
            )
        )
        monkeypatch.setenv("KVATLAS_CLIENT__TOKEN_FILE", str(tokens))
        assert await ask(f"--config={file}") == []
        monkeypatch.setenv("KVATLAS_CONFIG", str(file))
        assert await ask() == []
        monkeypatch.delenv("KVATLAS_CLIENT__TOKEN_FILE")
        assert "--token-file" in await ask()


def test_credentials_that_cannot_be_used_are_faults_of_the_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    authority.issue(tmp_path / "tls.crt", tmp_path / "tls.key")
    other.issue(tmp_path / "other.crt", tmp_path / "other.key")
    (tmp_path / "empty").write_text("\n# none\n")
    shutil.copy(tmp_path / "empty", tmp_path / "ca")
    cases = {
        'certificate_file = "tls.crt"': "certificate_file and key_file need each other",
        'client_ca_file = "ca"': "client_ca_file needs certificate_file and key_file",
        'certificate_file = "tls.crt"\nkey_file = "other.key"': "no certificate and its key",
        'certificate_file = "tls.crt"\nkey_file = "none.key"': "none.key cannot be read",
        'certificate_file = "tls.crt"\nkey_file = "tls.key"\nclient_ca_file = "ca"': "no certific",
        'token_file = "empty"': "contains no token",
        'token_file = "none"': "cannot be read: No such file",
    }
    for settings, words in cases.items():
        file = tmp_path / "kvatlas.toml"
        absolute = settings.replace('= "', f'= "{tmp_path}/')
        file.write_text(f"[admin]\n{absolute}\n")
        for name in ("check", "serve"):
            assert main([name, "--config", str(file)]) == 2
            said = capsys.readouterr().err
            assert words in said
            assert "admin" in said


async def test_metadata_beyond_16_kib_is_refused_and_less_never() -> None:
    async with running_service(local_configuration()) as service:
        stub = fleet_pb2_grpc.FleetServiceStub(service.admin)
        for size, expected in ((15_000, OK), (17_000, grpc.StatusCode.RESOURCE_EXHAUSTED)):
            for _ in range(10):
                call = stub.ListPods(LIST, metadata=(("x", "y" * size),))
                assert await call.code() is expected


async def test_a_connection_beyond_the_limit_is_closed() -> None:
    bounded = {"listen": ["127.0.0.1:0"], "connections": 2}
    async with Application(local_configuration(grpc=bounded)) as application:
        host, _, port = application.addresses[0].rpartition(":")
        kept = [socket.create_connection((host, int(port))) for _ in range(2)]
        for connection in kept:
            connection.settimeout(DEADLINE_SECONDS)
            connection.sendall(PREFACE)
            assert await asyncio.to_thread(connection.recv, 100)
        with socket.create_connection((host, int(port))) as further:
            further.settimeout(DEADLINE_SECONDS)
            assert await asyncio.to_thread(further.recv, 100) == b""
        for connection in kept:
            connection.close()


@pytest.mark.parametrize("said", [b"", PREFACE], ids=["handshake", "idle"])
async def test_a_connection_that_says_nothing_is_closed(said: bytes) -> None:
    seconds = {"handshake_seconds": 0.2, "idle_seconds": 0.2}
    bounded = {"listen": ["127.0.0.1:0"], **seconds}
    async with Application(local_configuration(grpc=bounded)) as application:
        host, _, port = application.addresses[0].rpartition(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.settimeout(DEADLINE_SECONDS)
            connection.sendall(said)
            while await asyncio.to_thread(connection.recv, 1000):
                pass


async def test_a_client_is_told_how_many_calls_it_may_make_and_in_time_to_reconnect() -> None:
    bounded = {
        "listen": ["127.0.0.1:0"],
        "calls_per_connection": 77,
        "connection_age_seconds": 0.2,
    }
    async with Application(local_configuration(grpc=bounded)) as application:
        host, _, port = application.addresses[0].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(PREFACE)
        settings: dict[int, int] = {}
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                head = await reader.readexactly(9)
                payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
                if head[3] == 4:
                    settings.update(struct.iter_unpack(">HI", payload))
                if head[3] == 7:
                    break
        assert settings[3] == 77  # SETTINGS_MAX_CONCURRENT_STREAMS
        assert (payload[4:8], b"max_age" in payload) == (bytes(4), True)  # no error
        writer.close()


@pytest.mark.parametrize(("apart", "served"), [(0.1, True), (60.0, False)])
async def test_pings_are_answered_unless_they_are_more_frequent_than_allowed(
    apart: float, served: bool
) -> None:
    """By default every 5 s, so that clients which ping every 10 s are served."""
    assert local_configuration().grpc.ping_seconds == 5
    bounded = {"listen": ["127.0.0.1:0"], "ping_seconds": apart}
    async with Application(local_configuration(grpc=bounded)) as application:
        host, _, port = application.addresses[0].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(PREFACE)
        goaway = False
        async with asyncio.timeout(DEADLINE_SECONDS):
            for number in range(6):
                ping = number.to_bytes(8, "big")
                writer.write(http2_frame(6, 0, 0, ping))
                while True:
                    head = await reader.readexactly(9)
                    payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
                    goaway = goaway or (head[3] == 7 and b"too_many_pings" in payload)
                    if goaway or (head[3], head[4], payload) == (6, 1, ping):
                        break
                if goaway:
                    break
                await asyncio.sleep(0.15)  # longer than pings must be apart in the first case
        writer.close()
        assert goaway is not served


async def test_services_on_one_host_need_no_admin_port_of_their_own() -> None:
    flags = {
        "grpc": {"listen": ["127.0.0.1:0"], "drain_seconds": 0.1},
        "metrics": {"listen": ""},
        "log": {"level": "error"},
    }
    async with Application(load(None, flags)) as one, Application(load(None, flags)) as other:
        ports = {address.rpartition(":")[2] for address in one.admin_addresses}
        ports |= {address.rpartition(":")[2] for address in other.admin_addresses}
        assert len(ports) == 2
        for application in (one, other):
            async with grpc.aio.insecure_channel(application.admin_addresses[0]) as channel:
                await fleet_pb2_grpc.FleetServiceStub(channel).ListPods(LIST)
