"""What clients read by hand is what the configuration's models would have read."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.config import ClientSection, ClientSettings, ConfigurationError, load, load_client

ADDRESSES = {"server": "grpc", "admin": "admin", "metrics": "metrics"}


def test_clients_know_the_settings_of_their_section() -> None:
    assert set(ClientSettings._fields) == set(ClientSection.model_fields)


def test_without_settings_a_client_calls_the_defaults_of_the_service() -> None:
    configured = load(None, {})
    found = load_client(None, {})
    assert found == ClientSettings("localhost:50051", "127.0.0.1:50052", "localhost:9464")
    assert found.server.endswith(configured.grpc.listen[0].rpartition(":")[2])
    assert found.admin == configured.admin.listen[0]
    assert found.metrics.endswith(configured.metrics.listen.rpartition(":")[2])


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"KVATLAS_CLIENT__SERVER": "a:1", "KVATLAS_CLIENT__TLS": "yes"},
        {"KVATLAS_CLIENT": '{"server": "a:1", "tls": true}', "KVATLAS_CLIENT__SERVER": "b:2"},
        {"kvatlas_client__ca_file": "/ca", "Kvatlas_Client__Server_Name": "n"},
        {"KVATLAS_CLIENT__TLS": "OFF", "KVATLAS_CLIENT__TOKEN_FILE": "/t"},
        {"KVATLAS_GRPC__LISTEN": '["unix:/s", "b:2"]', "KVATLAS_METRICS__LISTEN": ""},
        {"KVATLAS_ADMIN": '{"listen": []}', "KVATLAS_GRPC": '{"listen": ["[::1]:5"]}'},
    ],
)
@pytest.mark.parametrize("file", ["", "[client]\nserver = 'f:1'\ntls = false\nkey_file = '/k'\n"])
def test_the_layers_are_read_as_the_service_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], file: str
) -> None:
    path = tmp_path / "kvatlas.toml"
    path.write_text(file)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    configured, found = load(path, {}), load_client(path, {})
    for name in set(ClientSettings._fields) - set(ADDRESSES):
        assert getattr(found, name) == getattr(configured.client, name)
    for name, section in ADDRESSES.items():
        listen = getattr(configured, section).listen
        first = listen if isinstance(listen, str) else listen[0] if listen else ""
        reached = first.replace("0.0.0.0:", "localhost:")
        if name != "metrics":
            assert getattr(found, name) == (getattr(configured.client, name) or reached)


@pytest.mark.parametrize(
    ("file", "environment"),
    [
        ("[client]\ncolour = 1", {}),
        ("[client]\nserver = 1", {}),
        ("[client]\ntls = 'maybe'", {}),
        ("client = 1", {}),
        ("index = [", {}),
        ("[grpc]\nlisten = 1", {}),
        ("", {"KVATLAS_CLIENT__COLOUR": "red"}),
        ("", {"KVATLAS_CLIENT__TLS": "maybe"}),
        ("", {"KVATLAS_CLIENT": "{"}),
        ("", {"KVATLAS_GRPC__LISTEN": "[1]"}),
        ("", {"KVATLAS_CLIENT": "5", "KVATLAS_CLIENT__SERVER": "a:1"}),
    ],
)
def test_what_the_service_refuses_clients_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, environment: dict[str, str]
) -> None:
    path = tmp_path / "kvatlas.toml"
    path.write_text(file)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError):
        load(path, {})
    with pytest.raises(ConfigurationError):
        load_client(path, {})


def test_all_faults_of_clients_are_reported_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVATLAS_CLIENT__TLS", "maybe")
    monkeypatch.setenv("KVATLAS_GRPC__LISTEN", "nowhere")
    with pytest.raises(ConfigurationError) as caught:
        load_client(tmp_path / "none.toml", {})
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize(
    ("flags", "environment", "metrics"),
    [
        ({}, {}, "localhost:9464"),
        ({"admin": "a:1"}, {"KVATLAS_SERVER": "b:2"}, "a:9464"),
        ({"server": "c:1"}, {"KVATLAS_ADMIN_SERVER": "b:2"}, "c:9464"),
        ({}, {"KVATLAS_ADMIN_SERVER": "[::1]:2"}, "[::1]:9464"),
        ({}, {"KVATLAS_SERVER": "d:1", "KVATLAS_METRICS__LISTEN": "0.0.0.0:7"}, "d:7"),
        ({"admin": "unix:/s"}, {}, "localhost:9464"),
        ({"metrics": "m:1", "admin": "a:1"}, {}, "m:1"),
        ({"admin": "a:1"}, {"KVATLAS_METRICS__LISTEN": ""}, ""),
    ],
)
def test_metrics_are_read_from_the_service_that_is_called(
    monkeypatch: pytest.MonkeyPatch,
    flags: dict[str, str],
    environment: dict[str, str],
    metrics: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert load_client(None, flags).metrics == metrics


def test_flags_come_before_their_variables_and_these_before_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KVATLAS_CLIENT__SERVER", "setting:1")
    monkeypatch.setenv("KVATLAS_CLIENT__ADMIN", "setting:2")
    assert load_client(None, {}).server == "setting:1"
    monkeypatch.setenv("KVATLAS_SERVER", "variable:1")
    monkeypatch.setenv("KVATLAS_ADMIN_SERVER", "variable:2")
    found = load_client(None, {})
    assert (found.server, found.admin) == ("variable:1", "variable:2")
    assert load_client(None, {"server": "flag:1"}).server == "flag:1"
