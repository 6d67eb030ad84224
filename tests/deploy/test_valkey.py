"""The fleet's Valkey starts with the arguments of its manifest, and keeps others out."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from support.deadlines import DEADLINE_SECONDS
from support.deployed.manifests import named, pod_spec, rendered
from support.ports import free_port
from support.stores.servers import server_program

PASSWORD = "0123456789abcdef"


def test_valkey_starts_bounded_and_wants_the_password_of_its_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (container,) = pod_spec(named(rendered("fleet"), "Deployment", "valkey"))["containers"]
    (mount,) = container["volumeMounts"]
    (tmp_path / "password").write_text(PASSWORD)
    port = free_port()
    (script,) = container["args"]
    assert "--port 6379" in script
    script = script.replace("--port 6379", f"--port {port}")
    script = script.replace(mount["mountPath"], str(tmp_path))
    program = server_program("valkey")
    assert program is not None
    path = f"{Path(program).parent}:{os.environ['PATH']}"
    with subprocess.Popen(
        [*container["command"], script],
        env={**os.environ, "PATH": path},
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            info = _until_it_answers(redis.Redis(port=port, password=PASSWORD))
            assert Path(f"/proc/{process.pid}/comm").read_text() == "valkey-server\n", "exec"
            assert PASSWORD not in Path(f"/proc/{process.pid}/cmdline").read_text()
            assert info["maxmemory_policy"] == "noeviction"
            limit = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) * 2**30
            assert 0.7 * limit < info["maxmemory"] < 0.9 * limit, "room for buffers and copies"
            with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
                stranger.ping()
            process.terminate()
            assert process.wait(DEADLINE_SECONDS) == 0
        finally:
            process.kill()
            process.wait()
    assert {each.name for each in tmp_path.iterdir()} == {"password"}, "its root is read-only"


def _until_it_answers(client: redis.Redis) -> dict[str, Any]:
    deadline = time.monotonic() + DEADLINE_SECONDS
    with client:
        while True:
            try:
                return dict(client.info("memory"))
            except redis.ConnectionError:
                assert time.monotonic() < deadline
