"""What the repository promises of itself: names, maps of packages, sizes, examples that run."""

from __future__ import annotations

import ast
import re
import shlex
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click
import pytest
from support.paths import ROOT
from support.shipped import PACKAGES

import indexer
from service.cli.main import command

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILES = 12
"""Modules of a package, at most; sub-packages do not count."""

MAX_LINES = 300
"""Lines of a product file, at most."""

MAX_FUNCTION_LINES = 40
"""Lines of a function, from `def` to its last one, at most."""

# Loops over C types in the kernel, which lose speed when they are cut up.
LONG_KERNEL_FUNCTIONS = {
    "indexer/kernel/keys.py:block_keys",
    "indexer/kernel/prefix.py:walk",
    "service/kernel/answer.py:add_from_walk",
}


DIRECTORIES = [
    *(name for name in PACKAGES if (ROOT / name).is_dir()),
    "client/kvatlas_client",
]
"""Where the product lies that people write."""


def packages() -> list[str]:
    """Every package with a map: those of the product, and the tests' support."""
    roots = [*(ROOT / name for name in DIRECTORIES), ROOT / "tests" / "support"]
    return sorted(
        path.parent.relative_to(ROOT).as_posix()
        for root in roots
        for path in root.rglob("__init__.py")
    )


def mapped(package: str) -> list[str]:
    """The names that a package's docstring maps: lines of `    name    text`.

    Where all lines are indented, ruff format takes the indentation away: so it may be missing.
    """
    module = ast.parse((ROOT / package / "__init__.py").read_text())
    docstring = ast.get_docstring(module, clean=False) or ""
    return re.findall(r"^(?: {4}(?=\w+/? +\S)|(?=\w+/? {2,}\S))(\w+)", docstring, re.MULTILINE)


def entries(package: str) -> list[str]:
    """What lies in a package: modules, sub-packages and directories of scripts."""
    names = [
        path.stem
        for path in (ROOT / package).iterdir()
        if path.suffix == ".py" or (path.is_dir() and path.name != "__pycache__")
    ]
    return sorted(name for name in names if not name.startswith("__"))


@pytest.mark.parametrize("package", packages())
def test_the_docstring_of_a_package_maps_its_files(package: str) -> None:
    assert sorted(mapped(package)) == entries(package)


@pytest.mark.parametrize("package", packages())
def test_a_package_has_few_enough_files_to_be_read_at_a_glance(package: str) -> None:
    files = [path.name for path in (ROOT / package).glob("[a-z]*.py")]
    assert len(files) <= MAX_FILES, files


def product_files() -> list[Path]:
    """Every source file of the product that people write."""
    suffixes = {".py", ".pxd", ".lua"}
    return [
        path
        for name in DIRECTORIES
        for path in sorted((ROOT / name).rglob("*"))
        if path.suffix in suffixes and not re.search(r"_pb2(_grpc)?\.py$", path.name)
    ]


def test_no_product_file_is_long() -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for path in product_files()
    }
    long = {name for name, length in lengths.items() if length > MAX_LINES}
    assert not long, "split these"


def test_no_product_function_is_long() -> None:
    long = {
        f"{path.relative_to(ROOT).as_posix()}:{node.name}"
        for path in product_files()
        if path.suffix == ".py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert long == LONG_KERNEL_FUNCTIONS, "split what is new"


def test_our_package_names_belong_to_nobody_else() -> None:
    owners = packages_distributions()
    for package in PACKAGES:
        assert set(owners.get(package, ["kvatlas"])) == {"kvatlas"}, package
        assert find_spec(package) is not None


def test_the_directory_proto_is_no_package_of_ours() -> None:
    assert "kvatlas" not in packages_distributions().get("proto", [])


def test_the_kernel_is_compiled_as_a_whole_or_not_at_all() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in ROOT.glob("*/kernel/[a-z]*.py")
    ]
    assert len(modules) > 5
    specs = [find_spec(module) for module in modules]
    compiled = {spec is not None and not str(spec.origin).endswith(".py") for spec in specs}
    assert compiled == {indexer.COMPILED}


def readme_commands() -> list[str]:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    text = "".join(page.read_text() for page in pages)
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.lstrip("$ ").strip() for line in lines if line.lstrip("$ ").startswith("kvatlas ")]


def test_the_paths_of_an_event_and_a_request_name_files() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text().split("## The path of an event")[1]
    block = section.split("\n\n")[1]
    names = re.findall(r"(?:indexer|kvevents|service|store|tokenization)/[a-z_/]+", block)
    assert len(names) > 15
    assert not [n for n in names if not (ROOT / f"{n}.py").exists() and not (ROOT / n).is_dir()]


@pytest.mark.parametrize("line", readme_commands())
def test_the_readme_s_commands_are_understood(line: str) -> None:
    words = shlex.split(re.split(r"\|| &", line)[0], comments=True)[1:]
    found: click.Command = command()
    while isinstance(found, click.Group) and words and words[0] in found.commands:
        found = found.commands[words.pop(0)]
    with found.make_context(str(found.name), words):
        assert not isinstance(found, click.Group) or found.invoke_without_command


def test_the_documented_configuration_is_usable(tmp_path: Path) -> None:
    from service.config.configuration import load

    page = (ROOT / "docs" / "CONFIGURATION.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "kvatlas.toml").write_text(example)
    assert load(tmp_path / "kvatlas.toml", {}).sources
