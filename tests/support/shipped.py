"""The one list of what is shipped: setuptools' list in pyproject.toml."""

from __future__ import annotations

import tomllib

from support.paths import ROOT

_SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]

PACKAGES: list[str] = [
    pattern.removesuffix("*") for pattern in _SETUPTOOLS["packages"]["find"]["include"]
]
"""The import packages of the distribution, by name."""

DIRECTORIES: list[str] = sorted(
    _SETUPTOOLS["package-dir"].get(name, name).partition("/")[0] for name in PACKAGES
)
"""The directories of the repository that they are built from."""

_SUFFIXES = {".lua", ".proto", ".py", ".pyi"}


CLIENT = ROOT / "client"
"""The source of the client's wheel."""

CLIENT_PACKAGES = ["kvatlas", "kvatlas_client"]
"""The import packages of the client's wheel, which are in the service's wheel, too."""


def shipped_files() -> set[str]:
    """Every file that belongs into the service's wheel, as a path there."""
    return _files(PACKAGES)


def client_files() -> set[str]:
    """Every file that belongs into the client's wheel, as a path there."""
    return {file for file in _files(CLIENT_PACKAGES) if not file.endswith(".proto")}


def _files(packages: list[str]) -> set[str]:
    places = {name: ROOT / _SETUPTOOLS["package-dir"].get(name, name) for name in packages}
    return {
        f"{name}/{path.relative_to(place).as_posix()}"
        for name, place in places.items()
        for path in place.rglob("*")
        if path.suffix in _SUFFIXES or path.name == "py.typed"
    }
