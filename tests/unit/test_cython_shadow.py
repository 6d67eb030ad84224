"""The kernel in plain Python needs nothing of Cython's, and behaves as with Cython's own module."""

from __future__ import annotations

import ast
import importlib
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT

import indexer
from indexer.cython_shadow import shadow

MODULES = [shadow(), *([importlib.import_module("Cython.Shadow")] if find_spec("Cython") else [])]
"""Ours, and the one that it takes the place of where that is installed."""

KERNEL = sorted(ROOT.glob("*/kernel/[a-z]*.py"))


class Evaluated(ast.NodeVisitor):
    """Collects the names of `cython` that plain Python looks up: annotations are never run."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.value, ast.Name) and node.value.id == "cython":
            self.names.add(node.attr)
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        """A branch for compiled code alone is not run."""
        self.visit(node.test)
        test = ast.unparse(node.test)
        run = [*([] if test.startswith("cython.compiled") else node.body)]
        run += [] if test == "not cython.compiled" else node.orelse
        for child in run:
            self.visit(child)

    def visit_arg(self, node: ast.arg) -> None:
        """An argument's annotation is not run."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Only the value of an annotated assignment is run."""
        if node.value is not None:
            self.visit(node.value)


@pytest.mark.parametrize("path", KERNEL, ids=lambda path: path.stem)
def test_the_shadow_has_every_name_that_the_kernel_looks_up(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
    evaluated = Evaluated()
    evaluated.visit(tree)
    assert evaluated.names <= set(vars(shadow()))


@pytest.mark.parametrize("module", MODULES, ids=["ours", "Cython's"][: len(MODULES)])
@pytest.mark.parametrize("kind", ["Py_ssize_t", "int", "uchar", "uint", "ulonglong", "longlong"])
@pytest.mark.parametrize(
    ("value", "converted"), [(255, 255), (-1, -1), (1 << 65, 1 << 65), (2.75, 2)]
)
def test_values_are_converted_but_never_cut_off(
    module: Any, kind: str, value: float, converted: int
) -> None:
    for convert in (module.cast, module.declare):
        given = convert(getattr(module, kind), value)
        assert (given, type(given)) == (converted, int)


@pytest.mark.parametrize("module", MODULES, ids=["ours", "Cython's"][: len(MODULES)])
def test_a_cast_to_a_class_leaves_its_instances_alone(module: Any) -> None:
    text = "x"
    assert module.cast(str, text) is text
    assert module.cast(str, None) is None
    assert module.declare(module.double) is None
    assert module.declare(module.double, 1) == 1.0
    assert module.compiled is False


PROGRAM = """
import importlib.util
import sys

sys.modules["cython"] = None  # as if it were not installed
from array import array

import indexer, kvevents, service.kernel

assert (sys.modules["cython"] is None) is indexer.COMPILED
scheme = indexer.KeyScheme("my-model", 16)
assert indexer.COMPILED or importlib.util.find_spec("cython") is not None
print(indexer.COMPILED, *scheme.keys(scheme.root(), array('Q', range(64))))
"""


def ran(path: Path) -> list[str]:
    """What PROGRAM prints where the packages are imported from `path`."""
    environment = {**os.environ, "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-P", "-c", PROGRAM]
    done = subprocess.run(
        command, env=environment, cwd=path, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().split()


def test_neither_form_of_the_kernel_needs_cython(tmp_path: Path) -> None:
    installed = Path(indexer.__file__).parents[1]
    for name in ("indexer", "kvevents", "service"):
        shutil.copytree(
            installed / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__")
        )
    form, *keys = ran(installed)
    assert form == str(indexer.COMPILED)
    assert ran(tmp_path) == ["False", *keys]
    assert len(keys) == 4
