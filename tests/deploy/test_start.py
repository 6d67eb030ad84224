"""The service starts with what an overlay gives it, answers its probes, and ends in its grace."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import urllib.request
from pathlib import Path

import pytest
from support.deadlines import DEADLINE_SECONDS
from support.deployed.manifests import containers, rendered
from support.deployed.workload import Workload
from support.ports import free_port
from support.services.process import KVATLAS_COMMAND


@pytest.mark.parametrize("overlay", ["standalone", "sidecar"])
def test_the_service_starts_answers_and_ends_as_the_overlay_says(overlay: str) -> None:
    # A short path, as that of a Unix socket must be.
    with tempfile.TemporaryDirectory(prefix="kv") as folder:
        workload = Workload(rendered(overlay), Path(folder))
        _without_discovery(Path(folder))
        metrics, grpc = free_port(), free_port()
        environment = {
            **os.environ,
            **workload.environment,
            "KVATLAS_METRICS__LISTEN": f"127.0.0.1:{metrics}",
            "KVATLAS_ADMIN__LISTEN": "[]",
            "PYTHONUNBUFFERED": "1",
        }
        if overlay == "standalone":
            environment["KVATLAS_GRPC__LISTEN"] = json.dumps([f"127.0.0.1:{grpc}"])
            environment["KVATLAS_SERVER"] = f"127.0.0.1:{grpc}"
        else:
            (scheduler,) = (c for c in containers(workload.workload) if c["name"] == "scheduler")
            given = {each["name"]: workload.local(each["value"]) for each in scheduler["env"]}
            environment.update(given)
        with subprocess.Popen(
            [*KVATLAS_COMMAND, *workload.arguments],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            try:
                lines = iter(process.stderr.readline, "")
                assert any('"event": "serving"' in line for line in lines)
                with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/healthz") as answer:
                    assert answer.status == 200
                asked = subprocess.run(
                    [*KVATLAS_COMMAND, "health"], env=environment, check=False, timeout=60
                )
                assert asked.returncode == 0
                process.send_signal(signal.SIGTERM)
                grace = workload.pod["terminationGracePeriodSeconds"]
                rest = process.communicate(timeout=min(grace, DEADLINE_SECONDS))[1]
            finally:
                process.kill()
        assert process.returncode == 0, rest
        assert ("snapshot_written" in rest) is (overlay == "standalone")


def _without_discovery(folder: Path) -> None:
    """Leave out the discovery of pods, as here is no cluster."""
    file = folder / "etc_kvatlas" / "kvatlas.toml"
    text = re.sub(r"\[discovery\.kubernetes\]\n(?:[^\[\n].*\n)*", "", file.read_text())
    file.write_text(text)
