"""`kvatlas config show`: the value of every setting, and where it comes from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from service.cli.main import main
from service.config import Configuration, Setting, settings_of


def shown(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, dict[str, object]]:
    """What it prints as JSON."""
    assert main(["config", "show", "--json", *flags]) == 0
    found: dict[str, dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


def test_every_setting_is_shown_with_its_value_and_origin(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "kvatlas.toml"
    file.write_text("[limits]\npods = 5\n[pod_names]\na = 'b'\n[[models]]\nname = 'm'\n")
    monkeypatch.setenv("KVATLAS_INDEX__BLOCK_SIZE", "32")
    found = shown(capsys, f"--config={file}", "--index-limit=1GiB", "--bind=tcp://*:5557")
    names = {setting.name for setting in settings_of(Configuration)}
    whole = {name for name in found if name not in names}
    assert {name.rpartition(".")[0] for name in whole} == {"index.tier_weights", "pod_names"}
    assert names - set(found) == {"index.tier_weights", "pod_names"}
    assert found["limits.pods"] == {"value": 5, "from": "file", "name": str(file)}
    assert found["pod_names.a"] == {"value": "b", "from": "file", "name": str(file)}
    assert found["index.block_size"] == {
        "value": 32,
        "from": "environment",
        "name": "KVATLAS_INDEX__BLOCK_SIZE",
    }
    assert found["index.limit"] == {"value": 2**30, "from": "flag", "name": "--index-limit"}
    assert found["index.pod_share"] == {"value": 1.0, "from": "default", "name": ""}
    for name, endpoint in (("sources", "tcp://*:5557"), ("models", None)):
        elements: Any = found[name]["value"]
        assert [element.get("endpoint") for element in elements] == [endpoint]


CANDIDATES = [
    *(
        "2",
        "3",
        "0.5",
        "true",
        "false",
        "a=1",
        "127.0.0.1:7",
        "2MiB",
        "human",
        "grpcio",
        "name",
        "debug",
    ),
    *("http://h:8000", "forget", "redis://h:1", "x-key", "300", "32MiB", "https", "ipv6"),
]


@pytest.mark.parametrize(
    "setting", [s for s in settings_of(Configuration) if not s.is_json], ids=lambda s: s.name
)
def test_every_setting_has_a_flag_that_sets_it(
    capsys: pytest.CaptureFixture[str], setting: Setting
) -> None:
    name = f"{setting.name}.a" if setting.kind is dict else setting.name
    before = shown(capsys).get(name, {}).get("value")
    for value in CANDIDATES:
        status = main(["config", "show", "--json", "--changed", setting.flag, value])
        out = capsys.readouterr().out
        found = json.loads(out) if status == 0 else {name: {"value": before}}
        assert list(found) == [name]
        if found[name]["value"] != before:
            assert found[name]["from"] == "flag"
            return
    # Only files that exist, and settings that need each other, are accepted.
    files = r"_file$|^snapshot\.path$|^tokenization\.(directories|hub_cache)$|\.kubeconfig$"
    assert re.search(rf"{files}|^discovery\.kubernetes\.namespaces$", name), name


def test_the_table_leaves_out_defaults_if_told_to_and_always_passwords(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVATLAS_STORE__PASSWORD", "hunter2")
    flags = ["--store.url=redis://me:hunter2@h:1", "--store.username=me", "--log.level", "debug"]
    assert main(["config", "show", "--changed", *flags]) == 0
    table = capsys.readouterr().out
    assert [line.split() for line in table.splitlines()] == [
        ["SETTING", "VALUE", "FROM"],
        ["log.level", "debug", "--log-level"],
        ["store.url", "redis://me:***@h:1", "--index"],
        ["store.username", "me", "--store.username"],
        ["store.password", "(hidden)", "KVATLAS_STORE__PASSWORD"],
    ]
    assert main(["config", "show"]) == 0
    assert "hunter2" not in capsys.readouterr().out
    assert "hunter2" not in json.dumps(shown(capsys, *flags))


def test_sources_on_the_command_line_are_one_list(capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(
        capsys,
        '--sources={"endpoint": "tcp://a:1"}',
        "--bind=tcp://*:2",
        "--connect=p=tcp://c:3",
        "--connect=tcp://d:4",
    )
    sources = found["sources"]["value"]
    assert [(s["endpoint"], s["bind"], s["pod"]) for s in sources] == [  # type: ignore[attr-defined]
        ("tcp://a:1", False, ""),
        ("tcp://*:2", True, ""),
        ("tcp://c:3", False, "p"),
        ("tcp://d:4", False, ""),
    ]


def test_faults_and_variables_that_nothing_reads_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVATLAS_INDX__LIMIT", "1")
    monkeypatch.setenv("KVATLAS_SERVER", "a:1")
    monkeypatch.setenv("KVATLAS_ADMIN_SERVER", "a:1")
    assert main(["config", "show"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "kvatlas: KVATLAS_INDX__LIMIT: no setting has this name, so nothing reads this variable"
    ]
    assert main(["config", "show", "--limits.pods=0", "--pod-names=a", "--block-size=x"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    for flag in ("--limits.pods", "--pod-names", "--block-size"):
        assert sum(f"from {flag})" in line for line in lines) == 1
