"""promtool, and the metrics and labels that a query names."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_FUNCTIONS = (
    "sum|max|min|count|rate|increase|histogram_quantile|label_replace|topk|absent|by|on|and|or"
    "|group_left|without|unless|ignoring|bool|le"
)


def promtool(folder: Path, *arguments: str, given: str | None = None) -> str:
    """Run promtool, and return what it prints. Skips the test if there is none."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("there is no promtool here: Debian's package prometheus has it")
    done = subprocess.run(
        [program, *arguments], cwd=folder, input=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Named(NamedTuple):
    """What a query names."""

    metrics: dict[str, set[str]]
    """Metrics, with the labels by which their samples are selected."""
    grouping: set[str]
    """Labels by which it groups or joins."""


def named_in(query: str) -> Named:
    """The metrics and labels in a query."""
    labels = set()
    for group in re.findall(r"\b(?:by|on|group_left|without|ignoring)\s*\(([^)]*)\)", query):
        labels |= {label.strip() for label in group.split(",") if label.strip()}
    bare = re.sub(r"\b(?:by|on|group_left|without|ignoring)\s*\([^)]*\)", " ", query)
    metrics: dict[str, set[str]] = {}
    pattern = r"\b([a-z_:][a-z0-9_:]*)\b(?!\s*\()\s*(?:\{([^}]*)\})?"
    without_strings = re.sub(r"\"[^\"]*\"", '""', bare)
    for name, selector in re.findall(pattern, without_strings):
        if re.fullmatch(_FUNCTIONS, name) or ("_" not in name and name != "up"):
            continue
        selected = set(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", selector))
        metrics.setdefault(name, set()).update(selected)
    return Named(metrics, labels)
