"""The manifests render, fit several releases of Kubernetes, and their objects fit together."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from support.deployed.manifests import (
    COMPONENTS,
    DEPLOY,
    ENGINES,
    OVERLAYS,
    Object,
    containers,
    engine,
    named,
    of_kind,
    pod_labels,
    pod_spec,
    render,
    rendered,
    selects,
    workloads,
)
from support.paths import ROOT

RELEASES = ["1.30", "1.33", "1.35", "1.37"]
OURS = {"standalone": "StatefulSet", "fleet": "Deployment", "sidecar": "Deployment"}
PARTS = tuple(COMPONENTS)
ALL = [
    *((name, ()) for name in OVERLAYS),
    ("standalone", PARTS),
    ("fleet", PARTS),
]
"""Overlays as they are, and with all components on top."""


@pytest.fixture(params=ALL, ids=lambda each: "+".join([each[0], *each[1]]))
def objects(request: pytest.FixtureRequest) -> list[Object]:
    return rendered(*request.param)


@pytest.mark.parametrize("release", RELEASES)
def test_every_object_fits_its_schema(objects: list[Object], release: str) -> None:
    for each in objects:
        kubernetes_validate.validate(each, release, strict=True)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", ENGINES)
def test_every_example_of_an_engine_fits_its_schema(name: str, release: str) -> None:
    kubernetes_validate.validate(engine(name), release, strict=True)


def test_the_roles_for_all_namespaces_that_are_commented_out_fit_their_schema() -> None:
    text = (DEPLOY / "discovery" / "access.yaml").read_text()
    commented = "\n".join(
        line.removeprefix("# ").removeprefix("#")
        for line in text[text.index("# apiVersion") :].splitlines()
    )
    made = list(yaml.safe_load_all(commented))
    assert [each["kind"] for each in made] == ["ClusterRole", "ClusterRoleBinding"]
    for each in made:
        kubernetes_validate.validate(each, "1.30", strict=True)
    (role,) = of_kind(list(yaml.safe_load_all(text)), "Role")
    assert made[0]["rules"] == role["rules"]


def test_a_broken_object_does_not_fit_its_schema() -> None:
    broken = {**named(rendered("fleet"), "Service", "kvatlas"), "spec": {"ports": "many"}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.30", strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_file_of_deploy_is_rendered_or_named_in_its_readme(overlay: str) -> None:
    kinds = {each["kind"] for each in workloads(rendered(overlay))}
    assert kinds == ({OURS[overlay], "Deployment"} if overlay == "fleet" else {OURS[overlay]})
    readme = (DEPLOY / "README.md").read_text()
    for folder in DEPLOY.iterdir():
        if folder.is_dir():
            assert f"`{folder.name}" in readme
    for name in [*OVERLAYS, *COMPONENTS, *ENGINES]:
        assert f"/{name}" in readme


def test_the_readme_s_overlay_of_one_s_own_changes_what_it_says(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", (DEPLOY / "README.md").read_text(), re.DOTALL)
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "kustomization.yaml").write_text(example)
    (tmp_path / "own" / "kvatlas.toml").write_text("[index]\nlimit = '2GiB'\n")
    objects = render(tmp_path / "own")
    assert {each["metadata"]["namespace"] for each in objects} == {"kvatlas"}
    (configuration,) = of_kind(objects, "ConfigMap")
    assert configuration["data"] == {"kvatlas.toml": "[index]\nlimit = '2GiB'\n"}
    pod = pod_spec(named(objects, "Deployment", "kvatlas"))
    assert pod["containers"][0]["image"] == "registry.example.com/kvatlas:0.1.0"
    mounted = {each["configMap"]["name"] for each in pod["volumes"] if "configMap" in each}
    assert mounted == {configuration["metadata"]["name"]}
    (binding,) = of_kind(objects, "RoleBinding")
    assert binding["subjects"][0]["namespace"] == "kvatlas"


def test_pods_fit_the_restricted_standard_of_pod_security(objects: list[Object]) -> None:
    for workload in workloads(objects):
        pod = pod_spec(workload)
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        kinds = {kind for volume in pod["volumes"] for kind in set(volume) - {"name"}}
        assert kinds <= {"configMap", "secret", "emptyDir", "persistentVolumeClaim", "projected"}
        for container in containers(workload):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not any("hostPort" in port for port in container.get("ports", []))


def test_containers_have_a_memory_limit_that_they_request(objects: list[Object]) -> None:
    for workload in workloads(objects):
        for container in containers(workload):
            resources = container["resources"]
            assert resources["limits"] == {"memory": resources["requests"]["memory"]}
            assert resources["requests"]["cpu"]


def test_kvatlas_runs_as_the_image_s_user(objects: list[Object]) -> None:
    for workload in workloads(objects):
        if any(each["name"] == "kvatlas" for each in containers(workload)):
            user = pod_spec(workload)["securityContext"]["runAsUser"]
            assert re.search(rf"^USER {user}\b", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
            assert pod_spec(workload)["securityContext"]["fsGroup"] == user


def test_services_budgets_and_scalers_select_pods_that_there_are(objects: list[Object]) -> None:
    pods = [pod_labels(each) for each in workloads(objects)]
    for each in of_kind(objects, "Service", "PodDisruptionBudget", "NetworkPolicy"):
        spec = each["spec"]
        selector = spec.get("selector") or spec["podSelector"]
        assert sum(selects(selector, labels) for labels in pods) == 1, each["metadata"]["name"]
    for each in workloads(objects):
        assert selects(each["spec"]["selector"], pod_labels(each))
        for spread in pod_spec(each).get("topologySpreadConstraints", []):
            assert selects(spread["labelSelector"], pod_labels(each))
    for each in of_kind(objects, "HorizontalPodAutoscaler"):
        target = each["spec"]["scaleTargetRef"]
        scaled = named(objects, target["kind"], target["name"])
        assert "replicas" not in scaled["spec"], "each apply would restore it"
        assert target["apiVersion"] == scaled["apiVersion"]


def test_services_lead_to_ports_of_the_pods_they_select(objects: list[Object]) -> None:
    for service in of_kind(objects, "Service"):
        assert service["spec"]["ipFamilyPolicy"] == "PreferDualStack"
        (workload,) = (
            each
            for each in workloads(objects)
            if selects(service["spec"]["selector"], pod_labels(each))
        )
        ports = {
            port["name"]: port["containerPort"]
            for container in containers(workload)
            for port in container.get("ports", [])
        }
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]


@pytest.mark.parametrize("overlay", ["standalone", "fleet"])
def test_clients_find_each_replica_behind_the_headless_service(overlay: str) -> None:
    objects = rendered(overlay)
    headless = named(objects, "Service", "kvatlas-headless")["spec"]
    assert headless["clusterIP"] == "None"
    assert not headless.get("publishNotReadyAddresses")
    balanced = named(objects, "Service", "kvatlas")["spec"]
    assert headless["selector"] == balanced["selector"]
    assert [each["name"] for each in headless["ports"]] == ["grpc"], "one to scrape is enough"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kvatlas_may_list_and_watch_pods_and_nothing_else(overlay: str) -> None:
    objects = rendered(overlay)
    (role,) = of_kind(objects, "Role")
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["list", "watch"],
        },
    ]
    (binding,) = of_kind(objects, "RoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    (subject,) = binding["subjects"]
    (account,) = of_kind(objects, "ServiceAccount")
    assert (subject["kind"], subject["name"]) == ("ServiceAccount", account["metadata"]["name"])
    accounts = {
        pod_spec(each).get("serviceAccountName")
        for each in workloads(objects)
        if any(container["name"] == "kvatlas" for container in containers(each))
    }
    assert accounts == {subject["name"]}
    assert not of_kind(objects, "ClusterRole", "ClusterRoleBinding")


def test_a_fleet_is_updated_one_by_one_and_never_below_its_number() -> None:
    objects = rendered("fleet")
    spec = named(objects, "Deployment", "kvatlas")["spec"]
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
    }
    (budget,) = of_kind(objects, "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1
    (scaler,) = of_kind(objects, "HorizontalPodAutoscaler")
    assert scaler["spec"]["minReplicas"] == 3


def test_a_single_replica_keeps_its_snapshot_and_lets_nodes_be_drained() -> None:
    objects = rendered("standalone")
    (workload,) = workloads(objects)
    assert workload["spec"]["replicas"] == 1
    assert not of_kind(objects, "PodDisruptionBudget")
    named(objects, "Service", workload["spec"]["serviceName"])
    (claim,) = workload["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]


def test_a_sidecar_is_there_before_the_scheduler_and_in_one_pod_with_it() -> None:
    (workload,) = workloads(rendered("sidecar"))
    (sidecar,) = pod_spec(workload)["initContainers"]
    (scheduler,) = pod_spec(workload)["containers"]
    assert sidecar["restartPolicy"] == "Always"
    assert "startupProbe" in sidecar
    shared = {mount["name"] for mount in sidecar["volumeMounts"]} & {
        mount["name"] for mount in scheduler["volumeMounts"]
    }
    assert shared == {"kvatlas-socket"}


def test_the_image_has_one_name_and_version(objects: list[Object]) -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    images = {
        container["image"]
        for workload in workloads(objects)
        for container in containers(workload)
        if container["name"] == "kvatlas"
    }
    assert images == {f"kvatlas:{project['project']['version']}"}
