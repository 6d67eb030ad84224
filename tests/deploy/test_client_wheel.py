"""The client's wheel, installed alone with the oldest packages that it allows, calls a service."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import Any

import pytest
from kvatlas_client import __version__
from support.services.one_pod import MODEL, POD, TOKENS, block_stored, frame, service_with_pod
from support.shipped import CLIENT

PROJECT = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]
FLOORS = [each.replace(">=", "==") for each in PROJECT["dependencies"]]

CALLS = """
import asyncio, json, sys
from importlib.metadata import distributions

from kvatlas_client import AsyncClient, Client, InvalidRequestError, score_request

address, model, tokens = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])

async def ask():
    async with AsyncClient(address) as client, client.score_stream() as stream:
        return await stream.score(score_request(model, tokens), timeout=60)

with Client(address, timeout=60) as client, client.score_stream() as stream:
    answers = [client.score(score_request(model, tokens)), asyncio.run(ask())]
    answers.append(stream.score(score_request(model, tokens), timeout=60))
    try:
        client.score(score_request(model, []))
    except InvalidRequestError as error:
        reason = error.reason
print(json.dumps({
    "matched": [answer.pods[0].matched_blocks for answer in answers],
    "reason": reason,
    "installed": sorted(d.metadata["Name"] + "==" + d.version for d in distributions()),
}))
"""


def run(*command: str | Path, **options: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the wheel, and the oldest packages that the wheel allows."""
    folder = tmp_path_factory.mktemp("floors")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    source = shutil.copytree(CLIENT, folder / "source", ignore=shutil.ignore_patterns("build"))
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    run(*pip, "wheel", *options, source, env={**os.environ, "PYTHONPATH": ""})
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    done = subprocess.run(
        [*pip, "--python", str(python), "install", "-q", str(wheel), *FLOORS],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"the oldest packages cannot be had: {done.stderr}")
    return python


async def test_the_wheel_works_alone_with_the_oldest_packages_it_allows(python: Path) -> None:
    async with service_with_pod(models=[{"name": MODEL}]) as (service, pod):
        pod.send(frame(0, block_stored(TOKENS[:32])))
        await service.until_applied({(POD, 0): 0})
        arguments = [service.application.addresses[0], MODEL, json.dumps(TOKENS)]
        command = [str(python), "-W", "error", "-P", "-c", CALLS, *arguments]
        answer = json.loads(await asyncio.to_thread(run, *command))
    assert answer["matched"] == [2, 2, 2]
    assert answer["reason"] == "REQUEST_INVALID"
    ours = f"kvatlas-client=={__version__}"
    others = {"typing_extensions"}  # which grpcio needs
    installed = {each for each in answer["installed"] if each.partition("==")[0] not in others}
    assert installed == {ours, *FLOORS}


def test_the_floors_are_the_versions_that_the_stubs_ask_for() -> None:
    messages = (CLIENT / "kvatlas" / "v1" / "scoring_pb2.py").read_text()
    services = (CLIENT / "kvatlas" / "v1" / "scoring_pb2_grpc.py").read_text()
    protobuf = re.search(r"Protobuf Python Version: (\S+)", messages)
    grpcio = re.search(r"GRPC_GENERATED_VERSION = '(\S+)'", services)
    assert protobuf
    assert grpcio
    assert PROJECT["dependencies"] == [f"grpcio>={grpcio[1]}", f"protobuf>={protobuf[1]}"]


def test_the_service_s_wheel_has_the_client_of_the_same_version() -> None:
    service = tomllib.loads((CLIENT.parent / "pyproject.toml").read_text())["project"]
    assert service["version"] == __version__
