"""The kernel, built with address and undefined-behaviour sanitizers, is fed with anything.

It is built beside the tree, in a process of its own: the sanitizers must be loaded before Python.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

SANITIZERS = "-fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined"
INPUTS = ("frames=200000", "calls=200000", "snapshots=2000")


def libasan() -> str:
    """The library that has to be loaded first; the test is skipped where there is none."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc here")
    asked = [compiler, "-print-file-name=libasan.so"]
    path = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    if not Path(path).is_absolute():
        pytest.skip("this gcc has no address sanitizer")
    return path


def build(directory: Path) -> None:
    """Build a copy of the packages that the kernel is part of."""
    for name in ("indexer", "kvevents", "service"):
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / name, directory / name, ignore=ignored)
    optimized = (ROOT / "setup.py").read_text()
    (directory / "setup.py").write_text(optimized.replace("-O3", "-O1"))  # it builds for minutes
    flags = {"CC": "gcc", "CFLAGS": f"{SANITIZERS} -g", "LDFLAGS": SANITIZERS}
    subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=directory,
        env=os.environ | flags,
        check=True,
        capture_output=True,
    )
    assert list(directory.glob("indexer/kernel/segment*.so"))


@pytest.mark.soak
def test_the_sanitized_kernel_survives_hostile_frames_calls_and_snapshots(tmp_path: Path) -> None:
    library = libasan()
    build(tmp_path)
    sanitized = {
        "LD_PRELOAD": library,
        "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, ROOT / "tests"))),
        "PYTHONMALLOC": "malloc",  # so that each array is an allocation that is watched
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }
    fuzzed = subprocess.run(
        [sys.executable, "-P", "-m", "support.fuzzing", *INPUTS],
        env=os.environ | sanitized,
        capture_output=True,
        text=True,
        check=False,
    )
    print(fuzzed.stdout, fuzzed.stderr[-20_000:])
    assert fuzzed.returncode == 0
    assert len(fuzzed.stdout.splitlines()) == len(INPUTS)
