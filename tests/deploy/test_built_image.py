"""The built image serves: its own files, as its own user, with a file system it cannot write."""

from __future__ import annotations

import asyncio
import os
import re
import runpy
import signal
import tomllib
from pathlib import Path

import grpc
import pytest
import zmq
from kvatlas.v1 import scoring_pb2_grpc
from support.engines.publisher import Publisher
from support.models.hub import hub_with
from support.models.trained import write_tokenizer
from support.paths import ROOT
from support.services.built_image import BuiltImage
from support.services.one_pod import POD, TOKENS, block_stored, frame, score_request
from support.services.process import ServiceProcess

SIZES = runpy.run_path(str(ROOT / "deploy" / "image" / "sizes.py"))
MOST_BYTES = 130_000_000
"""What may be installed, all together."""


@pytest.fixture(scope="module")
def image() -> BuiltImage:
    directory = os.environ.get("IMAGE_DIR")
    if not directory or os.geteuid() != 0:
        pytest.skip("IMAGE_DIR names no image that `make image` built, or this is not root")
    return BuiltImage(ROOT / directory)


def processes_status(pid: int, field: str) -> list[str]:
    text = Path(f"/proc/{pid}/status").read_text()
    return next(line.split()[1:] for line in text.splitlines() if line.startswith(f"{field}:"))


def is_root_read_only(pid: int) -> bool:
    mounts = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    return "ro" in next(mount[5].split(",") for mount in mounts if mount[4] == "/")


async def best_score(service: ServiceProcess) -> tuple[str, int]:
    """The pod that holds most of TOKENS, and how many of them."""
    async with grpc.aio.insecure_channel(service.address) as channel:
        stub = scoring_pb2_grpc.ScoringServiceStub(channel)
        try:
            answer = await stub.Score(score_request(TOKENS), timeout=10)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.NOT_FOUND  # no pod has named the model yet
            return "", 0
        return max((score.pod, score.matched_tokens) for score in answer.pods)


async def test_the_image_serves_answers_and_drains_as_its_own_user(image: BuiltImage) -> None:
    command = image.command(environment={"KVATLAS_GRPC__LAME_DUCK_SECONDS": "0.2"})
    service = await asyncio.to_thread(ServiceProcess, command=command)
    try:
        assert set(processes_status(service.process.pid, "Uid")) == {"65532"}
        assert set(processes_status(service.process.pid, "Gid")) == {"65532"}
        assert is_root_read_only(service.process.pid)
        assert not [line for line in service.log if line["level"] in ("warning", "error")]
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        publisher = Publisher(context, service.events)
        await publisher.until_subscribed()
        publisher.send(frame(0, block_stored(TOKENS)))
        while await best_score(service) != (POD, 64):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        health = await asyncio.to_thread(image.run, "health", "--server", service.address)
        assert (health.returncode, health.stderr) == (0, "")
        publisher.close()
        context.term()
        status, rest = await asyncio.to_thread(service.stop, signal.SIGTERM)
        assert (status, [line for line in rest.splitlines() if '"error"' in line]) == (0, [])
        assert '"stopped"' in rest
    finally:
        service.process.kill()
    gone = await asyncio.to_thread(image.run, "health", "--server", service.address)
    assert gone.returncode == 1


def test_the_image_downloads_a_tokenizer_into_a_volume(image: BuiltImage, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    os.chown(volume, *map(int, image.config["User"].split(":")))
    with hub_with("acme/model", write_tokenizer(tmp_path)) as url:
        environment = {"HF_ENDPOINT": url, "KVATLAS_TOKENIZATION__DOWNLOAD": "true"}
        command = image.command(environment=environment, volume=volume)
        service = ServiceProcess(command=command)
        try:
            words = ["tokenize", "--model", "acme/model", "--text", "Once", "--server"]
            done = image.run(*words, service.address)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout
            assert list(volume.glob("hub/models--acme--model/snapshots/*/tokenizer.json"))
            assert service.stop()[0] == 0
        finally:
            service.process.kill()


def test_the_image_holds_a_compiled_kernel_and_nothing_to_build_with(image: BuiltImage) -> None:
    kernel = {path.parent.parent.name for path in image.site_packages.glob("*/kernel/*.so")}
    assert kernel == {"indexer", "kvevents", "service"}
    installed = {path.name.partition("-")[0] for path in image.site_packages.glob("*.dist-info")}
    assert "kvatlas" in installed
    assert not installed & {"pip", "setuptools", "wheel", "cython", "Cython"}
    files = [path for path in image.tree.glob("kvatlas/**/*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".h", ".c", ".a", ".pxd", ".pyx")]
    for program in ("gcc", "cc", "pip", "pip3"):
        assert not (image.tree / "kvatlas/bin" / program).exists()
    headers = [
        path for name in ("usr/include", "usr/local/include") for path in [image.tree / name]
    ]
    assert not [path for path in headers if path.exists() and any(path.iterdir())]


def documented_sizes() -> dict[str, float]:
    """The table of deploy/image/README.md: MB by package."""
    text = (ROOT / "deploy" / "image" / "README.md").read_text()
    return {
        name: float(size)
        for name, size in re.findall(r"^\| ([\w-]+) \| ([\d.]+) \|$", text, re.MULTILINE)
    }


def test_the_documented_sizes_are_those_of_the_image(image: BuiltImage) -> None:
    """The base image's Python may differ, and with it the wheels: by a tenth at most."""
    found = SIZES["sizes"](image.site_packages)
    assert sum(found.values()) <= MOST_BYTES, SIZES["table"](found)
    documented = documented_sizes()
    assert sum(documented.values()) > 0.8 * sum(found.values()) / 1e6
    for package, size in documented.items():
        assert found[package] / 1e6 == pytest.approx(size, rel=0.1, abs=0.3), SIZES["table"](found)
    assert not [
        package for package, size in found.items() if size > 1.5e6 and package not in documented
    ], SIZES["table"](found)


def test_the_labels_say_what_the_image_is(image: BuiltImage) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    prefix = "org.opencontainers.image."
    labels = {
        name.removeprefix(prefix): value
        for name, value in image.config["Labels"].items()
        if name.startswith(prefix)
    }
    revision = labels.pop("revision")
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", revision)
    assert labels == {
        "title": project["name"],
        "description": project["description"],
        "licenses": project["license"],
        "version": project["version"],
    }


def test_a_probe_that_starts_a_process_starts_from_bytecode(image: BuiltImage) -> None:
    """Nothing can be kept in a read-only file system, so what is imported is compiled before."""
    probe = image.config["Healthcheck"]["Test"]
    assert probe == ["CMD", "kvatlas", "health"]
    assert probe[1:-1] == image.config["Entrypoint"]
    done = image.run("health", "--server", "127.0.0.1:1", environment={"PYTHONVERBOSE": "1"})
    sources = re.findall(r"^# code object from '(/kvatlas/.*\.py)'", done.stderr, re.MULTILINE)
    assert re.findall(r"^# code object from '?/kvatlas/.*\.pyc", done.stderr, re.MULTILINE)
    assert not sources
