"""The lock file of the development environment is in step with pyproject.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKED = [
    Requirement(line)
    for line in (ROOT / "requirements-dev.lock").read_text().splitlines()
    if line.strip() and not line.lstrip().startswith("#")
]


@pytest.mark.parametrize(
    "wanted", [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["dev"]]
)
def test_every_dependency_is_locked_to_versions_it_allows(wanted: str) -> None:
    requirement = Requirement(wanted)
    locked = [pin for pin in LOCKED if pin.name == requirement.name.lower().replace("_", "-")]
    assert locked, "run `make lock`"
    for pin in locked:
        (exact,) = pin.specifier
        assert exact.operator == "=="
        assert requirement.specifier.contains(exact.version), "run `make lock`"


def test_the_lock_file_names_no_address() -> None:
    for pin in LOCKED:
        assert pin.url is None
    assert "://" not in (ROOT / "requirements-dev.lock").read_text()
