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


def shipped_files() -> set[str]:
    """Every file that belongs into the wheel, as a path there; `proto` is no package."""
    return {
        path.relative_to(ROOT).as_posix().removeprefix("proto/")
        for directory in DIRECTORIES
        for path in (ROOT / directory).rglob("*")
        if path.suffix in _SUFFIXES or path.name == "py.typed"
    }
