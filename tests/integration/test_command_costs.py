"""What commands cost: they are run every few seconds, and at every press of the tab key."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.deadlines import DEADLINE_SECONDS
from support.services.process import KVATLAS_COMMAND, ServiceProcess
from support.services.published import service_with_blocks

SECONDS = 0.15
"""Of the CPU, in user and system mode, from the start of the interpreter to the end."""

HEAVY = ["grpc", "google", "kvatlas", "numpy", "pydantic", "redis", "rich", "zmq", "tokenizers"]
"""Packages that take long to import."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with service_with_blocks(tmp_path_factory.mktemp("model")) as running:
        yield running


def cpu_seconds(command: list[str], **variables: str) -> float:
    """What a command takes, with bytecode, which the first run leaves for the others."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        command,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", **variables},
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=60,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def assert_cheap(*arguments: str, **variables: str) -> None:
    """Run a command until it takes little enough: a machine that is busy makes any run slower."""
    end = time.monotonic() + DEADLINE_SECONDS
    taken: list[float] = []
    while not taken or (taken[-1] > SECONDS and time.monotonic() < end):
        taken.append(cpu_seconds([*KVATLAS_COMMAND, *arguments], **variables))
    assert min(taken) <= SECONDS


def imported(*arguments: str, **variables: str) -> set[str]:
    """The heavy packages that a command imports."""
    done = subprocess.run(
        [sys.executable, "-P", "-X", "importtime", "-m", "service", *arguments],
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines} & set(HEAVY)


def test_the_health_of_a_service_is_asked_for_cheaply(
    service: ServiceProcess, tmp_path: Path
) -> None:
    assert_cheap("health", f"--server={service.address}")
    file = tmp_path / "kvatlas.toml"
    file.write_text(f'[grpc]\nlisten = ["{service.address}"]\n[index]\nblock_size = 16\n')
    assert_cheap("health", KVATLAS_CONFIG=str(file))


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["score", "--help"]])
def test_the_version_and_help_are_shown_cheaply(words: list[str]) -> None:
    assert_cheap(*words)


@pytest.mark.parametrize("words", ["kvatlas ", "kvatlas pods f", "kvatlas serve --b"])
def test_words_are_completed_cheaply(words: str) -> None:
    how = {"_KVATLAS_COMPLETE": "bash_complete", "COMP_WORDS": words}
    assert_cheap(COMP_CWORD=str(words.count(" ")), **how)


@pytest.mark.parametrize(
    ("words", "packages"),
    [
        (["--version"], set()),
        (["serve", "--help"], set()),
        (["health", "--server=127.0.0.1:1"], {"grpc"}),
        (["pods", "--json", "--server=127.0.0.1:1"], {"grpc", "google", "kvatlas"}),
        (
            ["score", "--model=m", "--tokens=1", "--server=127.0.0.1:1"],
            {"grpc", "google", "kvatlas"},
        ),
    ],
)
def test_a_command_imports_only_what_it_needs(words: list[str], packages: set[str]) -> None:
    assert imported(*words) == packages
