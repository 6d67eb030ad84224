"""Configuration: layers, and faults named all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.config.configuration import ConfigurationError, ignored_variables, load

FILE = """
default_model = "m"
[index]
block_size = 64
limit = "1GiB"
tier_weights = { gpu = 1.0, cpu = 0.5 }
[[models]]
name = "big"
block_size = 32
[[sources]]
endpoint = "tcp://*:5557"
bind = true
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "kvatlas.toml"
    path.write_text(FILE)
    return path


def test_configuration_defaults_are_those_of_the_field() -> None:
    configuration = load(None, {})
    assert configuration.index.block_size == 16
    assert configuration.index.hash_seed == ""
    weights = configuration.index.tier_weights
    assert (weights["gpu"], weights["cpu"], weights["shared_storage"]) == (1.0, 0.8, 0.4)
    assert (weights["disk"], weights["object_store"]) == (0.3, 0.2)
    assert configuration.index.count_copies


def test_flags_override_the_environment_and_it_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVATLAS_INDEX__HASH_SEED", "from environment")
    monkeypatch.setenv("KVATLAS_INDEX__BLOCK_SIZE", "8")
    configuration = load(file, {"index": {"block_size": 4}})
    assert configuration.index.block_size == 4
    assert configuration.index.hash_seed == "from environment"
    assert configuration.index.limit == 1024**3
    assert configuration.block_size_of("big") == 32
    assert configuration.block_size_of("other") == 4


def test_the_environment_may_name_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVATLAS_CONFIG", str(file))
    assert load(None, {}).sources[0].bind


def test_every_fault_is_reported_with_name_value_and_what_is_right(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(
        """
        colour = "red"
        [index]
        block_size = 0
        limit = "3 bananas"
        tier_weights = { gpu = -1 }
        [grpc]
        listen = ["nowhere"]
        [[sources]]
        endpoint = "tcp://*:5557"
        [[sources]]
        endpoint = "http://pod"
        """
    )
    with pytest.raises(ConfigurationError) as caught:
        load(path, {})
    faults = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 7
    for words in (
        "colour: unknown setting",
        "index.block_size: input should be greater than or equal to 1 (it is 0)",
        "index.limit:",
        "index.tier_weights.gpu:",
        "grpc.listen: 'nowhere' is not host:port",
        "sources.0: cannot connect to the wildcard 'tcp://*:5557': set bind = true",
        "sources.1: endpoint 'http://pod' is not tcp://, ipc:// or inproc://",
    ):
        assert words in faults


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"models": [{"name": "a"}, {"name": "a"}]}, "'a' is configured twice"),
        ({"sources": [{"endpoint": "tcp://a:1"}] * 2}, "'tcp://a:1' is configured twice"),
        ({"sources": [{"endpoint": "tcp://*:1", "bind": True, "pod": "x"}]}, "leave pod empty"),
        ({"sources": [{"endpoint": "tcp://host"}]}, "has no port"),
        ({"metrics": {"listen": "0.0.0.0:99999"}}, "port from 0 to 65535"),
        ({"grpc": {"listen": []}}, "at least one address"),
        ({"index": {"limit": 10}}, "greater than or equal to 1048576"),
        ({"limits": {"prompt_tokens": -4}}, "greater than or equal to 1"),
    ],
)
def test_settings_that_cannot_work_together_are_refused(
    flags: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        load(None, flags)


def test_a_configuration_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing\.toml: cannot be read"):
        load(tmp_path / "missing.toml", {})
    broken = tmp_path / "broken.toml"
    broken.write_text("index = [")
    with pytest.raises(ConfigurationError, match=r"broken\.toml: not valid TOML"):
        load(broken, {})


def test_an_environment_variable_that_is_not_json_is_a_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KVATLAS_SOURCES", "[{")
    with pytest.raises(ConfigurationError, match="sources"):
        load(None, {})


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ('[[models]]\nname = "m"\ntokenizer = "{there}/none"', "models.0.tokenizer: this file"),
        ('[[models]]\nname = "m"\ntokenizer = "{there}"', "there is no tokenizer.json in this"),
        ('[[models]]\nname = "m"\nchat.template = "{there}/none"', "chat.template: this file"),
        ('[[models]]\nname = "m"\nchat.template = "{there}/bytes"', "this file is no text"),
        ('[snapshot]\npath = "{there}/none/snapshot"', "snapshot.path: there is no directory"),
        ('[snapshot]\npath = "{there}"', "snapshot.path: must be a file"),
        ('[tokenization]\ndirectories = ["{there}/none"]', "directories.0: this directory does"),
        ('[tokenization]\nhub_cache = "{there}/none"', "hub_cache: there is no directory"),
        ('[store]\nca_file = "{there}/none"', "store.ca_file: this file does not exist"),
    ],
)
def test_a_path_that_leads_nowhere_is_a_fault(tmp_path: Path, setting: str, words: str) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff")
    file = tmp_path / "kvatlas.toml"
    file.write_text(setting.replace("{there}", str(tmp_path)))
    with pytest.raises(ConfigurationError) as caught:
        load(file, {})
    assert words in caught.value.faults[0]
    assert len(caught.value.faults) == 1


@pytest.mark.parametrize(
    ("flags", "collide"),
    [
        ({"metrics": {"listen": "0.0.0.0:50051"}}, True),
        ({"metrics": {"listen": "127.0.0.1:50051"}}, True),
        ({"grpc": {"listen": ["10.0.0.1:50052"]}}, False),
        ({"admin": {"listen": ["localhost:50051"]}}, True),
        ({"grpc": {"listen": ["unix:/a"]}, "admin": {"listen": ["unix:/a"]}}, True),
        ({"grpc": {"listen": ["a:0"]}, "admin": {"listen": ["a:0"]}}, False),
        ({"sources": [{"endpoint": "tcp://*:9464", "bind": True}]}, True),
        ({"sources": [{"endpoint": "tcp://a:9464"}]}, False),
    ],
)
def test_two_listeners_with_one_port_are_a_fault(flags: dict[str, object], collide: bool) -> None:
    if collide:
        with pytest.raises(ConfigurationError, match="collide"):
            load(None, flags)
    else:
        load(None, flags)


def test_a_variable_that_no_setting_reads_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KVATLAS_INDX__LIMIT", "KVATLAS_DEFAULT_MODEL__X", "KVATLAS_SOURCES__0"):
        monkeypatch.setenv(name, "1GiB")
        assert [line.partition(":")[0] for line in ignored_variables()] == [name]
        monkeypatch.delenv(name)
    monkeypatch.setenv("KVATLAS_INDX__LIMIT", "1GiB")
    load(None, {})  # the service starts all the same
    monkeypatch.setenv("KVATLAS_INDEX__LIMITS", "1GiB")
    with pytest.raises(ConfigurationError, match=r"index\.limits: unknown setting"):
        load(None, {})


def test_the_default_of_the_administration_collides_with_nothing() -> None:
    load(None, {"grpc": {"listen": ["0.0.0.0:50052"]}})
    with pytest.raises(ConfigurationError, match="collide"):
        load(
            None,
            {"grpc": {"listen": ["0.0.0.0:50052"]}, "admin": {"listen": ["127.0.0.1:50052"]}},
        )


def test_variables_that_kubernetes_sets_for_a_service_are_no_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for service in ("KVATLAS", "KVATLAS_ADMIN"):
        for name, value in {
            "SERVICE_HOST": "10.0.0.5",
            "SERVICE_PORT": "50051",
            "SERVICE_PORT_GRPC": "50051",
            "PORT": "tcp://10.0.0.5:50051",
            "PORT_50051_TCP": "tcp://10.0.0.5:50051",
            "PORT_50051_TCP_PROTO": "tcp",
        }.items():
            monkeypatch.setenv(f"{service}_{name}", value)
    assert ignored_variables() == []


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(None, {}).index.block_size = 3  # type: ignore[misc]


def test_the_store_s_password_is_read_from_its_file_unless_it_is_given(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("in a file\n")
    store = {"url": "redis://host", "password_file": str(file)}
    assert load(None, {"store": store}).store.address.password == "in a file"
    given = {**store, "password": "given"}
    assert load(None, {"store": given}).store.address.password == "given"
    in_url = {**store, "url": "redis://:url@host"}
    assert load(None, {"store": in_url}).store.address.password == "url"
    with pytest.raises(ConfigurationError, match=r"store\.password_file: this file does not exist"):
        load(None, {"store": {**store, "password_file": str(tmp_path / "none")}})
