"""The lock files are in step with pyproject.toml, and with each other."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME = PROJECT["project"]["dependencies"]
TRACES = PROJECT["project"]["optional-dependencies"]["traces"]
DEVELOPMENT = PROJECT["dependency-groups"]["dev"]
FILES = ["requirements.lock", "requirements-dev.lock"]


def pins(file: str) -> list[Requirement]:
    """The locked packages, each with one version."""
    lines = (ROOT / file).read_text().splitlines()
    return [Requirement(line.rstrip(" \\")) for line in lines if re.match(r"\w", line)]


LOCKED = {file: pins(file) for file in FILES}


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        *(("requirements.lock", wanted) for wanted in [*RUNTIME, *TRACES]),
        *(("requirements-dev.lock", wanted) for wanted in [*RUNTIME, *DEVELOPMENT]),
    ],
)
def test_every_dependency_is_locked_to_versions_it_allows(file: str, wanted: str) -> None:
    requirement = Requirement(wanted)
    name = requirement.name.lower().replace("_", "-")
    locked = [pin for pin in LOCKED[file] if pin.name == name]
    assert locked, "run `make lock`"
    for pin in locked:
        (exact,) = pin.specifier
        assert exact.operator == "=="
        assert requirement.specifier.contains(exact.version), "run `make lock`"


def test_what_runs_the_service_has_the_versions_that_the_tests_run_with() -> None:
    tested = {(pin.name, str(pin.specifier)) for pin in LOCKED["requirements-dev.lock"]}
    shipped = {(pin.name, str(pin.specifier)) for pin in LOCKED["requirements.lock"]}
    assert shipped <= tested, "run `make lock`"


def test_what_runs_the_service_is_locked_by_hash_and_has_no_tool_in_it() -> None:
    text = (ROOT / "requirements.lock").read_text()
    blocks = re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(LOCKED["requirements.lock"]) > 20
    assert all("--hash=sha256:" in block for block in blocks)
    names = {pin.name for pin in LOCKED["requirements.lock"]}
    assert not names & {"cython", "pip", "setuptools", "wheel", "pytest", "hf-xet"}


@pytest.mark.parametrize("file", FILES)
def test_the_lock_files_name_no_address(file: str) -> None:
    for pin in LOCKED[file]:
        assert pin.url is None
    assert "://" not in (ROOT / file).read_text()
