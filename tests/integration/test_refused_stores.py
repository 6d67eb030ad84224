"""A store that refuses the service: the start says so and fails; an outage is waited for."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from redis import Redis
from support.deadlines import DEADLINE_SECONDS
from support.ports import free_port
from support.services.process import KVATLAS_COMMAND
from support.services.running import local_configuration, running_service
from support.stores.certificates import make_certificates
from support.stores.servers import StoreProcess, server_program, store_process

from service.replication import SharedReplica

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "hunter2"


@pytest.fixture
def redis() -> Iterator[StoreProcess]:
    """A server of its own, which asks for a password."""
    if server_program("redis") is None:
        pytest.skip("there is no redis-server on this machine")
    with store_process("redis") as process:
        with process.client() as client:
            users = {"writer": ["~*", "+@all"], "reader": ["~*", "+@read", "+evalsha", "+eval"]}
            for name, rules in users.items():
                client.execute_command("ACL", "SETUSER", name, "on", ">good", *rules)
            client.config_set("requirepass", "good")
        yield process


def client_of(store: StoreProcess) -> Redis:
    """A client that knows the password."""
    return Redis(port=store.port, password="good")


@contextmanager
def answering(reply: bytes) -> Iterator[int]:
    """The port of a server that says the same to everybody."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return  # it is closed
            with connection:
                connection.recv(4096)
                connection.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def start_that_fails(url: str, tmp_path: Path, **settings: str) -> str:
    """What the command says on standard error, without its log."""
    more = "".join(f'{name} = "{value}"\n' for name, value in settings.items())
    file = tmp_path / "kvatlas.toml"
    file.write_text(f'[store]\nurl = "{url}"\n{more}')
    done = subprocess.run(
        [
            *(*KVATLAS_COMMAND, "serve", "--config", str(file), "--listen=127.0.0.1:0"),
            *("--metrics-listen=", "--log-format=json"),
        ],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert SECRET not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    return line


@pytest.mark.parametrize(
    ("credentials", "database", "reason"),
    [
        ("", "", "authenticated"),
        (f":{SECRET}@", "", "invalid username-password"),
        (f"nobody:{SECRET}@", "", "invalid username-password"),
        ("reader:good@", "", "permission"),
        ("writer:good@", "/99", "DB index is out of range"),
    ],
)
def test_a_login_that_is_refused_ends_the_start_with_the_reason(
    redis: StoreProcess, tmp_path: Path, credentials: str, database: str, reason: str
) -> None:
    url = redis.url.replace("//", f"//{credentials}") + database
    line = start_that_fails(url, tmp_path)
    assert line.startswith("kvatlas: cannot start: store.url: the store refuses: ")
    assert reason in line or "can't run this command" in line


def test_a_server_that_is_no_redis_ends_the_start(tmp_path: Path) -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert "Protocol error" in start_that_fails(f"redis://127.0.0.1:{port}", tmp_path)


def test_a_server_that_is_no_cluster_ends_the_start_of_one_that_wants_a_cluster(
    redis: StoreProcess, tmp_path: Path
) -> None:
    url = redis.url.replace("redis://", "redis+cluster://:good@")
    assert "Cluster mode is not enabled" in start_that_fails(url, tmp_path)


def test_a_certificate_of_another_authority_ends_the_start(tmp_path: Path) -> None:
    if server_program("redis") is None:
        pytest.skip("there is no redis-server on this machine")
    for folder in ("theirs", "ours"):
        (tmp_path / folder).mkdir()
        make_certificates(tmp_path / folder)
    port, files = free_port(), tmp_path / "theirs"
    options = ["--tls-port", str(port), "--tls-ca-cert-file", str(files / "ca.crt")]
    options += ["--tls-cert-file", str(files / "host.crt")]
    options += ["--tls-key-file", str(files / "host.key")]
    with store_process("redis", *options):
        ca_file = str(tmp_path / "ours" / "ca.crt")
        line = start_that_fails(f"rediss://localhost:{port}", tmp_path, ca_file=ca_file)
    assert "certificate" in line.lower()


async def test_a_login_that_is_refused_later_is_shown_as_a_failure_of_the_store(
    redis: StoreProcess,
) -> None:
    url = redis.url.replace("//", "//writer:good@")
    store = {"url": url, "namespace": "refused", "lease_seconds": 1.0}
    async with running_service(local_configuration(store=store)) as service:
        replica = service.application.replica
        assert isinstance(replica, SharedReplica)

        def failure() -> str:
            return replica.status(time.monotonic()).store_failure

        assert not failure()
        with client_of(redis) as client:
            client.execute_command("ACL", "SETUSER", "writer", "resetpass", ">changed")
            client.execute_command("CLIENT", "KILL", "USER", "writer")
            async with asyncio.timeout(DEADLINE_SECONDS):
                while failure() != "refused":
                    await service.pods()
            client.execute_command("ACL", "SETUSER", "writer", "resetpass", ">good")
            async with asyncio.timeout(DEADLINE_SECONDS):
                while failure():
                    await service.pods()


async def test_a_store_that_is_away_is_waited_for() -> None:
    store = {"url": f"redis://127.0.0.1:{free_port()}", "ready_seconds": 0.1}
    async with running_service(local_configuration(store=store)) as service:
        replica = service.application.replica
        assert isinstance(replica, SharedReplica)
        assert replica.failures.counts["unreachable"] >= 1
