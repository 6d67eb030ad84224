"""The one list of what is shipped: setuptools' lists in the pyproject.toml of each wheel."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

from support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

CLIENT = ROOT / "client"
"""The source of the client's wheel."""

CLIENT_PACKAGES = ["kvatlas", "kvatlas_client"]
"""The import packages of the client's wheel: the stubs, and the client."""

_SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]

PACKAGES: list[str] = [
    pattern.removesuffix("*") for pattern in _SETUPTOOLS["packages"]["find"]["include"]
]
"""The import packages of the service's wheel, each in the directory of its name."""

_SUFFIXES = {".lua", ".py", ".pyi"}


def shipped_files() -> set[str]:
    """Every file that belongs into the service's wheel, as a path there."""
    return _files(ROOT, PACKAGES)


def client_files() -> set[str]:
    """Every file that belongs into the client's wheel, as a path there."""
    return _files(CLIENT, CLIENT_PACKAGES)


def _files(root: Path, packages: list[str]) -> set[str]:
    return {
        path.relative_to(root).as_posix()
        for package in packages
        for path in (root / package).rglob("*")
        if path.suffix in _SUFFIXES or path.name == "py.typed"
    }
