"""The image's build context and wheel hold every shipped package; no docker engine is needed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from setuptools import find_namespace_packages
from support.paths import ROOT
from support.shipped import (
    CLIENT,
    DIRECTORIES,
    PACKAGES,
    client_files,
    shipped_files,
)


def is_admitted(path: str, patterns: list[str]) -> bool:
    """Whether a .dockerignore admits a file: the last pattern that matches it or a parent wins."""
    parts = path.split("/")
    ancestry = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    admitted = True
    for pattern in patterns:
        expression = _expression(pattern.removeprefix("!"))
        if any(expression.fullmatch(name) for name in ancestry):
            admitted = pattern.startswith("!")
    return admitted


def _expression(pattern: str) -> re.Pattern[str]:
    """The regular expression of a pattern: `**/` spans directories, `*` and `?` do not."""
    spelled = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.strip("/"))
    return re.compile("".join(spelled.get(part) or re.escape(part) for part in parts))


def copied() -> list[tuple[str, str]]:
    """(source, target) of each COPY of the Dockerfile from the build context."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copies = [line.split()[1:] for line in lines if re.match(r"COPY (?!--from)", line)]
    return [(source, words[-1]) for words in copies for source in words[:-1]]


@pytest.mark.parametrize(
    ("path", "admitted"),
    [
        ("README.md", True),
        ("store/lua/prelude.lua", True),
        ("tests/conftest.py", False),
        ("store/kernel/rows.so", False),
        ("rows.so", False),
        ("store/__pycache__/x.pyc", False),
        ("storeroom/x.py", False),
        ("deploy/README.md", False),
    ],
)
def test_the_dockerignore_reader_of_this_file_reads_as_docker_does(
    path: str, admitted: bool
) -> None:
    patterns = ["*", "!README.md", "!store", "**/*.so", "**/__pycache__"]
    assert is_admitted(path, patterns) is admitted


def test_setuptools_finds_exactly_the_shipped_packages() -> None:
    found = {
        name.partition(".")[0]
        for where in (ROOT, ROOT / "proto", CLIENT)
        for name in find_namespace_packages(str(where), include=[f"{p}*" for p in PACKAGES])
    }
    assert found == set(PACKAGES)
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages | {"client", "proto"} == set(DIRECTORIES)


def test_the_dockerfile_copies_exactly_what_the_wheel_is_built_from() -> None:
    files = {"pyproject.toml", "setup.py", "README.md", "LICENSE"}
    for_the_image = {"requirements.lock", "requirements-dev.lock", "deploy/image"}
    assert {source for source, _ in copied()} == files | for_the_image | set(DIRECTORIES)
    for source, target in copied():
        assert (ROOT / source).exists(), source
        assert target in ("./", source), "a directory is copied under its own name"


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build context that .dockerignore leaves, of what the repository holds."""
    folder = tmp_path_factory.mktemp("context")
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    top = [".dockerignore", ".ci", "Dockerfile", "LICENSE", "Makefile", "README.md"]
    top += ["requirements.lock", "requirements-dev.lock"]
    for name in [*top, "pyproject.toml", "setup.py", "deploy", "tests", *DIRECTORIES]:
        root = ROOT / name
        for file in root.rglob("*") if root.is_dir() else [root]:
            path = file.relative_to(ROOT).as_posix()
            if (file.is_file() or file.is_symlink()) and is_admitted(path, patterns):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, folder / path, follow_symlinks=False)
    return folder


def test_the_build_context_holds_what_the_dockerfile_copies_and_no_more(context: Path) -> None:
    roots = {source.partition("/")[0] for source, _ in copied()}
    assert {path.name for path in context.iterdir()} == roots
    assert [path.name for path in (context / "deploy").iterdir()] == ["image"]
    assert not [path for path in context.rglob("*") if path.suffix in (".so", ".pyc")]


@pytest.fixture(scope="module")
def source(context: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the Dockerfile makes of the build context."""
    source = tmp_path_factory.mktemp("source")
    for name, target in copied():
        place = source / name if target == "./" else source / target
        place.parent.mkdir(parents=True, exist_ok=True)
        if (context / name).is_dir():
            shutil.copytree(context / name, place, symlinks=True)
        else:
            shutil.copy(context / name, place)
    return source


@pytest.mark.parametrize(
    ("folder", "files"),
    [(".", shipped_files()), ("client", client_files())],
    ids=["service", "client"],
)
def test_the_wheels_of_the_build_context_hold_every_shipped_file(
    source: Path, tmp_path: Path, folder: str, files: set[str]
) -> None:
    """Built without a C compiler, which is faster and leaves every module as Python."""
    out = tmp_path / "out"
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    subprocess.run(
        [sys.executable, "-c", build],
        cwd=source / folder,
        env={**os.environ, "CC": "no-compiler", "PYTHONPATH": ""},
        capture_output=True,
        check=True,
    )
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == files
