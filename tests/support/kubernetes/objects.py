"""Pods and EndpointSlices, as JSON has them."""

from __future__ import annotations

from typing import Any

APP = {"app": "vllm"}
Object = dict[str, Any]
KINDS = {"pods": ("v1", "Pod"), "endpointslices": ("discovery.k8s.io/v1", "EndpointSlice")}
"""Plural -> API version and kind."""
_DISCOVERY = {"groupVersion": "discovery.k8s.io/v1", "version": "v1"}
KNOWN: dict[str, Object] = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [
            {
                "name": "discovery.k8s.io",
                "versions": [_DISCOVERY],
                "preferredVersion": _DISCOVERY,
            }
        ],
    },
    **{
        path: {
            "kind": "APIResourceList",
            "groupVersion": version,
            "resources": [
                {
                    "name": plural,
                    "singularName": kind.lower(),
                    "namespaced": True,
                    "kind": kind,
                    "verbs": ["list", "watch"],
                }
            ],
        }
        for path, plural, (version, kind) in (
            ("/api/v1", "pods", KINDS["pods"]),
            ("/apis/discovery.k8s.io/v1", "endpointslices", KINDS["endpointslices"]),
        )
    },
}
"""Path -> which APIs there are, as kubectl asks."""


def pod(
    name: str,
    ip: str = "",
    *,
    namespace: str = "models",
    ready: bool = True,
    phase: str = "Running",
    terminating: bool = False,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    node: str = "node-1",
    ports: dict[str, int] | None = None,
    ips: tuple[str, ...] = (),
) -> Object:
    """A Pod; without an address it is pending."""
    addresses = ips or ((ip,) if ip else ())
    metadata: Object = {"name": name, "namespace": namespace, "labels": labels or APP}
    if annotations is not None:
        metadata["annotations"] = annotations
    if terminating:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    status: Object = {
        "phase": phase if addresses else "Pending",
        "conditions": [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Ready", "status": "True" if ready else "False"},
        ],
    }
    if addresses:
        status |= {"podIP": addresses[0], "podIPs": [{"ip": address} for address in addresses]}
    named = [{"name": key, "containerPort": port} for key, port in (ports or {}).items()]
    spec: Object = {"containers": [{"name": "engine", "image": "vllm", "ports": named}]}
    if node:
        spec["nodeName"] = node
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": spec,
        "status": status,
    }


def endpoint(
    address: str,
    *,
    target: str = "",
    node: str = "node-1",
    **conditions: bool | None,
) -> Object:
    """An endpoint of a slice; its conditions are those that are given."""
    found: Object = {"addresses": [address], "conditions": conditions, "nodeName": node}
    if target:
        found["targetRef"] = {"kind": "Pod", "namespace": "models", "name": target}
    return found


def endpoint_slice(
    name: str,
    *endpoints: Object,
    service: str = "vllm",
    namespace: str = "models",
    family: str = "IPv4",
    ports: dict[str, int] | None = None,
    labels: dict[str, str] | None = None,
) -> Object:
    """An EndpointSlice of a service."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service, **(labels or {})},
        },
        "addressType": family,
        "endpoints": list(endpoints),
        "ports": [
            {"name": key, "port": port, "protocol": "TCP"}
            for key, port in (ports or {"http": 8000}).items()
        ],
    }


def status_object(code: int, reason: str, message: str) -> Object:
    """A Status: why not."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
