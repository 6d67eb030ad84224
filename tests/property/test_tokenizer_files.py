"""Whatever the files of a tokenizer contain, they load or are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support.paths import ROOT


def loaded(directory: Path, seed: int, count: int) -> Counter[str]:
    """How loading so many mutations ended."""
    module = [sys.executable, "-m", "support.models.mutated", str(directory), str(seed), str(count)]
    done = subprocess.run(
        module, cwd=ROOT / "tests", capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return Counter(json.loads(done.stdout.splitlines()[-1]))


def test_a_broken_tokenizer_is_refused_and_no_accident(tmp_path: Path) -> None:
    found = loaded(tmp_path, 1, 120)
    assert found["refused"] > 30
    assert found["ids"] > 5
    assert found.total() == 120


@pytest.mark.soak
def test_many_broken_tokenizers_are_refused(tmp_path: Path) -> None:
    for seed in range(2, 32):
        loaded(tmp_path, seed, 500)
