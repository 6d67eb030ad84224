"""The store's scripts: Python and Lua name the same arguments in the same order."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import msgpack
import pytest

import store
from store.scripts import SCRIPTS, AcquireWorker, FlushWorker, Script

LUA = Path(store.__file__).parent / "lua"


def code(script: str) -> str:
    """A script without the comments above its first line of code."""
    lines = (LUA / f"{script}.lua").read_text().splitlines()
    first = next(n for n, line in enumerate(lines) if not line.startswith("--"))
    return "\n".join(lines[first:])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.file)
def test_a_script_names_its_arguments_as_its_dataclass_does(script: type[Script]) -> None:
    names = [field.name for field in fields(script)]  # type: ignore[arg-type]
    declared = re.match(r"local ([\w,\s]+?) =\s+unpack\(ARGV, 2\)", code(script.file))
    assert (re.split(r",\s+", declared[1]) if declared else []) == names
    assert code(script.file).count("ARGV") == (1 if names else 0)


def test_every_script_has_a_dataclass() -> None:
    files = {path.stem for path in LUA.iterdir()} - {"prelude"}
    assert files == {script.file for script in SCRIPTS}


def test_the_arguments_of_a_script_are_in_the_order_of_their_names() -> None:
    script = AcquireWorker("a:1/0", "m", "one", "g", "needed", ["one", "two"], 1)
    *plain, packed, shards = script.arguments()
    assert [*plain, shards] == ["a:1/0", "m", "one", "g", "needed", 1]
    assert msgpack.unpackb(packed) == ["one", "two"]
    assert len(fields(FlushWorker)) == 19
