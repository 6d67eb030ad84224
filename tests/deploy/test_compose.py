"""The compose file fits its schema, and starts kvatlas with what kvatlas understands."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from support.deployed.manifests import DEPLOY, named, pod_spec, rendered
from support.deployed.prometheus import promtool
from support.models.fetched import compose_schema
from support.services.process import KVATLAS_COMMAND

from service.config.configuration import load
from service.config.listening import GrpcSection

COMPOSE = DEPLOY / "compose"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())[
    "services"
]
KVATLAS = SERVICES["kvatlas"]


def mounts(service: dict[str, Any]) -> dict[str, Path]:
    """The files that a service mounts, by where."""
    split = (each.split(":") for each in service["volumes"])
    return {target: (COMPOSE / source).resolve() for source, target, _ in split}


def test_the_compose_file_fits_its_schema() -> None:
    schema = compose_schema()
    document = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    document.pop("name")  # younger than the schema
    validator = jsonschema.Draft201909Validator(schema)
    assert [error.message for error in validator.iter_errors(document)] == []
    document["services"]["kvatlas"]["readonly"] = True
    assert not validator.is_valid(document)


def test_kvatlas_check_accepts_its_command_environment_and_file() -> None:
    (target, file), *_ = mounts(KVATLAS).items()
    name, *arguments = KVATLAS["command"]
    assert name == "serve"
    done = subprocess.run(
        [*KVATLAS_COMMAND, "check", *(each.replace(target, str(file)) for each in arguments)],
        env={**os.environ, **KVATLAS["environment"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_published_ports_are_those_that_kvatlas_listens_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KVATLAS["environment"].items():
        monkeypatch.setenv(name, value)
    configuration = load(COMPOSE / "kvatlas.toml", {})
    listened = {
        configuration.grpc.listen[0],
        configuration.metrics.listen,
        configuration.sources[0].endpoint,
    }
    for published in KVATLAS["ports"]:
        host, outside, inside = published.split(":")
        assert host == "127.0.0.1", "a laptop serves itself alone"
        assert outside == inside
        assert any(each.endswith(f":{inside}") for each in listened)
    assert len(KVATLAS["ports"]) == len(listened)
    ((host, port),) = configuration.store.address.hosts
    assert (host in SERVICES, port) == (True, 6379)
    assert configuration.index.limit < 2 * 2**30  # mem_limit


def test_every_file_that_is_mounted_is_there() -> None:
    for service in SERVICES.values():
        for source in mounts(service).values() if "volumes" in service else []:
            assert source.is_file(), source


def test_stopping_waits_for_the_drain() -> None:
    grpc = GrpcSection()
    (seconds,) = re.findall(r"^(\d+)s$", KVATLAS["stop_grace_period"])
    assert int(seconds) > grpc.lame_duck_seconds + grpc.drain_seconds + 5


def test_images_are_those_of_the_manifests() -> None:
    fleet = rendered("fleet")
    for name in ("kvatlas", "valkey"):
        (container,) = pod_spec(named(fleet, "Deployment", name))["containers"]
        assert SERVICES[name]["image"] == container["image"]


def test_promtool_accepts_its_configuration(tmp_path: Path) -> None:
    for target, source in mounts(SERVICES["prometheus"]).items():
        (tmp_path / Path(target).name).write_text(source.read_text())
    promtool(tmp_path, "check", "config", "prometheus.yml")
    (scraped,) = yaml.safe_load((COMPOSE / "prometheus.yaml").read_text())["scrape_configs"]
    assert scraped["job_name"] == "kvatlas", "the alerts name this job"
    assert scraped["static_configs"] == [{"targets": ["kvatlas:9464"]}]
