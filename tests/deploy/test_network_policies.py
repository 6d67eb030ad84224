"""The network policies let pass what kvatlas needs, and nothing else."""

from __future__ import annotations

import pytest
from support.deployed.manifests import (
    containers,
    engine,
    named,
    pod_labels,
    rendered,
)
from support.deployed.policies import Peer, allows

OVERLAYS = ["standalone", "fleet"]
PORTS = {"grpc": 50051, "metrics": 9464, "events": 5557}
KVATLAS = Peer({"app.kubernetes.io/name": "kvatlas"}, ports=PORTS)
GATEWAY = Peer({"app.kubernetes.io/component": "gateway"})
PROMETHEUS = Peer({"app.kubernetes.io/name": "prometheus"}, other_namespace=True)
STRANGER = Peer({"app.kubernetes.io/name": "stranger"})
ELSEWHERE = Peer({"app.kubernetes.io/component": "gateway"}, other_namespace=True)
DNS = Peer({"k8s-app": "kube-dns"}, other_namespace=True)
API = Peer({}, address="10.96.0.1")
API6 = Peer({}, address="fd00::1")
ENGINE = Peer({"app.kubernetes.io/component": "model-server"})
VALKEY = Peer({"app.kubernetes.io/name": "valkey"}, ports={"valkey": 6379})


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize(
    ("source", "target", "port", "kind", "passes"),
    [
        (GATEWAY, KVATLAS, 50051, "TCP", True),
        (GATEWAY, KVATLAS, 9464, "TCP", False),
        (GATEWAY, KVATLAS, 50052, "TCP", False),
        (ELSEWHERE, KVATLAS, 50051, "TCP", False),
        (STRANGER, KVATLAS, 50051, "TCP", False),
        (STRANGER, KVATLAS, 9464, "TCP", False),
        (PROMETHEUS, KVATLAS, 9464, "TCP", True),
        (PROMETHEUS, KVATLAS, 50051, "TCP", False),
        (ENGINE, KVATLAS, 5557, "TCP", False),
        (KVATLAS, ENGINE, 8000, "TCP", True),
        (KVATLAS, ENGINE, 22, "TCP", False),
        (KVATLAS, STRANGER, 5557, "TCP", False),
        (KVATLAS, DNS, 53, "UDP", True),
        (KVATLAS, DNS, 53, "TCP", True),
        (KVATLAS, DNS, 54, "UDP", False),
        (KVATLAS, STRANGER, 53, "UDP", False),
        (KVATLAS, API, 443, "TCP", True),
        (KVATLAS, API6, 6443, "TCP", True),
        (KVATLAS, API, 80, "TCP", False),
    ],
)
def test_the_policies_let_pass(
    overlay: str, source: Peer, target: Peer, port: int, kind: str, passes: bool
) -> None:
    assert allows(rendered(overlay), source, target, port, kind) is passes


def test_only_replicas_of_a_fleet_reach_valkey_and_valkey_reaches_nobody() -> None:
    fleet = rendered("fleet")
    assert allows(fleet, KVATLAS, VALKEY, 6379)
    for other in (GATEWAY, STRANGER, ENGINE):
        assert not allows(fleet, other, VALKEY, 6379)
    for other in (KVATLAS, STRANGER, API):
        assert not allows(fleet, VALKEY, other, 443)
    assert not allows(rendered("standalone"), KVATLAS, VALKEY, 6379)


def test_pods_that_connect_reach_the_port_of_events_with_their_component_alone() -> None:
    connecting = rendered("fleet", ("connecting-pods",))
    assert allows(connecting, ENGINE, KVATLAS, 5557)
    assert not allows(connecting, STRANGER, KVATLAS, 5557)
    assert not allows(connecting, ENGINE, KVATLAS, 50051)


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_kvatlas_reaches_every_port_of_the_engines_examples(overlay: str, name: str) -> None:
    deployment = engine(name)
    pod = Peer(pod_labels(deployment))
    (container,) = containers(deployment)
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    ranks = 8
    reached = [ports["http"]]
    reached += [ports[kind] + rank for kind in ("events", "replay") for rank in range(ranks)]
    for port in reached:
        assert allows(rendered(overlay), KVATLAS, pod, port)


def test_the_labels_of_these_tests_are_those_of_the_pods() -> None:
    fleet = rendered("fleet")
    assert pod_labels(named(fleet, "Deployment", "kvatlas")) == KVATLAS.labels
    assert pod_labels(named(fleet, "Deployment", "valkey")) == VALKEY.labels
