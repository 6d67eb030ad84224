"""What the house promises: names, floors of packages, examples that run."""

from __future__ import annotations

import re
import shlex
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest

import indexer
from service.cli.main import parser

ROOT = Path(__file__).parents[1]
OURS = ["indexer", "kvatlas", "kvevents", "service", "store", "tokenization"]


def test_our_package_names_belong_to_nobody_else() -> None:
    owners = packages_distributions()
    for package in OURS:
        assert set(owners.get(package, ["kvatlas"])) == {"kvatlas"}, package
        assert find_spec(package) is not None


def test_proto_is_no_package_of_ours() -> None:
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
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.lstrip("$ ").strip() for line in lines if line.lstrip("$ ").startswith("kvatlas ")]


@pytest.mark.parametrize("command", readme_commands())
def test_the_readme_s_commands_are_understood(command: str) -> None:
    words = shlex.split(command.split("|", maxsplit=1)[0], comments=True)[1:]
    parsed = parser().parse_args(words)
    assert parsed.run is not None


def test_the_readme_s_configuration_is_usable(tmp_path: Path) -> None:
    from service.config.configuration import load

    (example,) = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "kvatlas.toml").write_text(example)
    assert load(tmp_path / "kvatlas.toml", {}).sources
