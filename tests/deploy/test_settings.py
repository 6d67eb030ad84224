"""What the manifests give to kvatlas is what kvatlas reads: arguments, settings, ports, paths."""

from __future__ import annotations

import os
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import ByteSize, TypeAdapter
from support.deployed.manifests import COMPONENTS, DEPLOY, OVERLAYS, named, rendered
from support.deployed.workload import KUBERNETES_IS_TO_COME, STORE_PASSWORD, Workload
from support.services.process import KVATLAS_COMMAND

from service.config.configuration import ignored_variables
from service.config.listening import GrpcSection
from service.replication.shared import _HANDOVER_SECONDS

if TYPE_CHECKING:
    from service.config.configuration import Configuration

PARTS = tuple(COMPONENTS)
ALL = [*((name, ()) for name in OVERLAYS), ("standalone", PARTS), ("fleet", PARTS)]
WRITING_SECONDS_PER_GIB = 10.0
"""More than a snapshot of 1 GiB takes, see SIZING.md."""


@pytest.fixture(params=ALL, ids=lambda each: "+".join([each[0], *each[1]]))
def workload(request: pytest.FixtureRequest, tmp_path: Path) -> Workload:
    return Workload(rendered(*request.param), tmp_path)


@pytest.fixture
def configuration(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> Configuration:
    return workload.configuration(monkeypatch)


def test_kvatlas_check_accepts_the_arguments_the_environment_and_the_file(
    workload: Workload,
) -> None:
    name, *arguments = workload.arguments
    assert name == "serve"
    done = subprocess.run(
        [*KVATLAS_COMMAND, "check", *arguments],
        env={**os.environ, **workload.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "the configuration is valid" in done.stdout


def test_every_variable_is_a_setting(
    workload: Workload, monkeypatch: pytest.MonkeyPatch, configuration: Configuration
) -> None:
    assert ignored_variables() == []
    assert all(name.startswith("KVATLAS_") for name in workload.environment)
    assert not workload.pod["enableServiceLinks"]


def test_pods_are_found_by_the_label_that_the_engines_and_policies_have(
    workload: Workload, configuration: Configuration
) -> None:
    found = tomllib.loads(workload.file)["discovery"]["kubernetes"]
    assert found == {"selector": "app.kubernetes.io/component=model-server", "ports": [8000]}
    if not KUBERNETES_IS_TO_COME:
        read = configuration.discovery.model_dump()["kubernetes"]
        assert read["selector"] == found["selector"]
        assert tuple(map(str, read["ports"])) == ("8000",)


def test_the_ports_are_those_that_kvatlas_listens_on(
    workload: Workload, configuration: Configuration
) -> None:
    ports = {
        "metrics": _port(configuration.metrics.listen),
        **({"events": 5557} if configuration.sources else {}),
    }
    if "kvatlas-metrics" in workload.ports:
        assert workload.ports == {"kvatlas-metrics": ports["metrics"]}
        (address,) = configuration.grpc.listen
        assert address == workload.local("unix:/run/kvatlas/kvatlas.sock")
    else:
        assert workload.ports == {**ports, "grpc": _port(configuration.grpc.listen[0])}
    for source in configuration.sources:
        assert source.endpoint == f"tcp://*:{workload.ports['events']}"


def test_kvatlas_listens_on_ipv4_and_ipv6(configuration: Configuration) -> None:
    hosts = {
        address.rpartition(":")[0]
        for address in [*configuration.grpc.listen, configuration.metrics.listen]
        if not address.startswith("unix:")
    }
    assert hosts <= {"0.0.0.0", "[::]"}  # which are both families: see the tests of the listeners


def test_the_probes_ask_a_port_that_answers_without_credentials(
    workload: Workload, configuration: Configuration
) -> None:
    probes = [value for key, value in workload.container.items() if key.endswith("Probe")]
    assert len(probes) >= 2
    speaks_grpc = (
        not configuration.grpc.listen[0].startswith("unix:")
        and configuration.grpc.certificate_file is None
    )
    for probe in probes:
        assert ("grpc" in probe) is speaks_grpc
        if speaks_grpc:
            assert probe["grpc"]["port"] == workload.ports["grpc"]
        else:
            assert probe["httpGet"]["path"] == "/healthz"
            assert workload.ports[probe["httpGet"]["port"]] == _port(configuration.metrics.listen)


def test_the_startup_may_take_as_long_as_a_copy_or_a_full_snapshot(
    workload: Workload, configuration: Configuration
) -> None:
    probe = workload.container["startupProbe"]
    allowed = probe["periodSeconds"] * probe["failureThreshold"]
    assert allowed >= 60 + configuration.store.ready_seconds


def test_the_grace_covers_the_stop_the_drain_and_the_handover(
    workload: Workload, configuration: Configuration
) -> None:
    needed = configuration.grpc.lame_duck_seconds + configuration.grpc.drain_seconds
    needed += (
        workload.container.get("lifecycle", {})
        .get("preStop", {})
        .get("sleep", {"seconds": 0})["seconds"]
    )
    if configuration.store.url:
        needed += _HANDOVER_SECONDS
    if configuration.snapshot.path is not None:
        needed += WRITING_SECONDS_PER_GIB * configuration.index.limit / 2**30
    assert workload.pod["terminationGracePeriodSeconds"] > needed


def test_the_comments_about_the_grace_say_the_defaults() -> None:
    text = (DEPLOY / "base" / "deployment.yaml").read_text()
    defaults = GrpcSection()
    assert f"grpc.lame_duck_seconds ({defaults.lame_duck_seconds:.0f})" in text
    assert f"grpc.drain_seconds ({defaults.drain_seconds:.0f})" in text
    assert f"at most {_HANDOVER_SECONDS:.0f} for the" in text


def test_settings_name_files_where_the_container_mounts_them(
    workload: Workload, configuration: Configuration
) -> None:
    paths = [
        configuration.snapshot.path,
        configuration.grpc.certificate_file,
        configuration.grpc.key_file,
        configuration.grpc.token_file,
        configuration.discovery.token_file,
        configuration.store.password_file,
        *configuration.tokenization.directories,
        *(
            Path(each.removeprefix("unix:"))
            for each in configuration.grpc.listen
            if "unix:" in each
        ),
        *(Path(each) for each in workload.arguments if each.startswith("/")),
    ]
    used = set()
    for path in filter(None, paths):
        (mounted,) = (
            mount
            for mount in workload.mounts
            if path.is_relative_to(workload.local(mount)) and path.is_absolute()
        )
        used.add(mounted)
    assert used | {"/tmp"} >= set(workload.mounts), "a volume that nothing reads"


def test_a_snapshot_is_written_to_a_claim_and_all_else_is_read_only(
    workload: Workload, configuration: Configuration
) -> None:
    for path, mount in workload.mounts.items():
        volume = workload.volume(mount["name"])
        is_written = "emptyDir" in volume or "claim" in volume
        assert bool(mount.get("readOnly")) is not is_written
        if "claim" in volume:
            assert configuration.snapshot.path is not None
            assert str(configuration.snapshot.path.parent) == workload.local(path)
            size = TypeAdapter(ByteSize).validate_python(
                volume["claim"]["resources"]["requests"]["storage"] + "B"
            )
            assert size >= 2 * configuration.index.limit, "a new one is written beside the old one"


def test_a_fleet_s_store_is_the_service_that_it_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = rendered("fleet")
    address = Workload(objects, tmp_path).configuration(monkeypatch).store.address
    service = named(objects, "Service", "valkey")
    assert address.hosts == ((service["metadata"]["name"], service["spec"]["ports"][0]["port"]),)
    assert address.password == STORE_PASSWORD, "without the line end"


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
