"""Layers of the configuration: flags, variables and a file; what each value comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import service.config
from service.config import (
    Configuration,
    ConfigurationError,
    Flag,
    load_with_origins,
    settings_of,
    without_password,
)

SETTINGS = {setting.name: setting for setting in settings_of(Configuration)}


def flag(name: str, *values: str) -> Flag:
    return Flag(f"--{name}", SETTINGS[name], list(values))


def leaves(model: type[BaseModel], section: str = "") -> set[str]:
    """The names of all fields that are no sections, by looking at an instance."""
    found = set()
    for name, value in model():
        if isinstance(value, BaseModel):
            found |= leaves(type(value), f"{section}{name}.")
        else:
            found.add(section + name)
    return found


def value(settings: Any, name: str) -> Any:
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings


def test_every_field_of_every_section_is_a_setting() -> None:
    assert set(SETTINGS) == leaves(Configuration)
    assert len(SETTINGS) > 100
    assert SETTINGS["index.block_size"].flag == "--index.block-size"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (flag("index.block_size", "32"), 32),
        (flag("grpc.listen", "[::1]:50051", "10.0.0.1:1"), ("[::1]:50051", "10.0.0.1:1")),
        (flag("admin.listen", ""), ()),
        (flag("snapshot.path", ""), None),
        (flag("index.hash_seed", "null"), "null"),
        (flag("index.hash_seed", "a,b{"), "a,b{"),
        (flag("tokenization.download", "true"), True),
        (flag("pod_names", "a=b", "c=d=e"), {"a": "b", "c": "d=e"}),
        (flag("index.limit", "3GiB"), 3 * 1024**3),
        (flag("log.level", "debug"), "debug"),
    ],
)
def test_a_flag_means_what_is_written(given: Flag, expected: object) -> None:
    loaded = load_with_origins(None, [given])
    assert value(loaded.settings, given.setting.name) == expected


def test_sources_and_models_are_given_as_json() -> None:
    sources = flag(
        "sources", '{"endpoint": "tcp://*:1", "bind": true}', '{"endpoint": "tcp://a:2"}'
    )
    models = flag("models", '{"name": "m", "block_size": 32}')
    loaded = load_with_origins(None, [sources, models]).settings
    assert [source.endpoint for source in loaded.sources] == ["tcp://*:1", "tcp://a:2"]
    assert loaded.block_size_of("m") == 32


def test_each_value_has_the_origin_of_the_last_layer_that_sets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kvatlas.toml"
    file.write_text(
        'default_model = "m"\n[index]\nblock_size = 8\nhash_seed = "s"\npod_share = 0.5\n'
        "tier_weights = { gpu = 1.0, cpu = 0.5 }\n"
    )
    monkeypatch.setenv("KVATLAS_INDEX", '{"hash_seed": "t", "block_size": 4}')
    monkeypatch.setenv("kvatlas_index__block_size", "2")
    flags = [flag("index.tier_weights", "cpu=0.25"), flag("default_model", "n")]
    loaded = load_with_origins(file, flags)
    assert loaded.settings.index.tier_weights["cpu"] == 0.25
    for name, expected, layer, where in (
        ("default_model", "n", "flag", "--default_model"),
        ("index.block_size", 2, "environment", "kvatlas_index__block_size"),
        ("index.hash_seed", "t", "environment", "KVATLAS_INDEX"),
        ("index.pod_share", 0.5, "file", str(file)),
        ("index.limit", 2 * 1024**3, "default", ""),
    ):
        assert value(loaded.settings, name) == expected
        assert loaded.origin(tuple(name.split("."))) == (layer, where)
    assert loaded.origin(("index", "tier_weights", "gpu")) == ("file", str(file))
    assert loaded.origin(("index", "tier_weights", "cpu")) == ("flag", "--index.tier_weights")
    assert loaded.origin(("index", "tier_weights", "disk")) == ("default", "")


def test_faults_of_all_layers_are_reported_together_and_say_whose_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kvatlas.toml"
    file.write_text("[limits]\npods = 0\n")
    monkeypatch.setenv("KVATLAS_SOURCES", "[{")
    monkeypatch.setenv("KVATLAS_MODELS", "nonsense")
    monkeypatch.setenv("KVATLAS_INDEX__BLOCK_SIZE", "many")
    flags = [
        flag("pod_names", "a"),
        flag("metrics.connections", "-1"),
        flag("log.level", "loud"),
    ]
    with pytest.raises(ConfigurationError) as caught:
        load_with_origins(file, flags)
    faults = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 7
    for words in (
        "sources: not valid JSON",
        "(from KVATLAS_SOURCES)",
        "models: not valid JSON",
        "pod_names: must be NAME=VALUE, not 'a' (from --pod_names)",
        "(it is 'many', from KVATLAS_INDEX__BLOCK_SIZE)",
        "(it is '-1', from --metrics.connections)",
        "limits.pods: input should be greater than or equal to 1 (it is 0)",
        "'debug', 'info', 'warning' or 'error' (it is 'loud', from --log.level)",
    ):
        assert words in faults


def test_a_fault_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVATLAS_STORE__PASSWORD", '["hunter2"]')
    monkeypatch.setenv("KVATLAS_STORE__URL", "redis://me:hunter2@nowhere:port")
    monkeypatch.setenv("KVATLAS_CLIENT", '{"hunter2"')
    with pytest.raises(ConfigurationError) as caught:
        load_with_origins(None, [flag("store.password", "hunter2"), flag("limits.pods", "x")])
    assert len(caught.value.faults) == 3
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://u:p@h:1/0", "redis://u:***@h:1/0"),
        ("redis://:p@h:1", "redis://:***@h:1"),
        ("redis://h:1", "redis://h:1"),
        ("redis+cluster://u:p@a:1,b:2", "redis+cluster://u:***@a:1,b:2"),
        ("redis://u:p/w@h:1", "redis://u:***@h:1"),
    ],
)
def test_the_password_of_a_url_is_hidden(text: str, shown: str) -> None:
    assert without_password(text) == shown


def test_the_names_of_the_package_are_found_where_they_are_said_to_be() -> None:
    for name in service.config.__all__:
        assert getattr(service.config, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = service.config.Nonsense  # type: ignore[attr-defined]
