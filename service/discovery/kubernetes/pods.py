"""What an object of kind Pod says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from service.discovery.kubernetes.collection import ReadObject
from service.discovery.kubernetes.labels import Endpoint, Labelled, Metadata, Part, url, usable
from service.discovery.pods import DiscoveredPod

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from ipaddress import IPv4Address, IPv6Address

    from service.config.discovery import KubernetesSection
    from service.discovery.kubernetes.status import Skipped


class _Port(Part):
    name: str | None = None
    containerPort: int = Field(ge=1, le=65_535)  # noqa: N815 - the API's names, here and below
    protocol: str | None = None


class _Container(Part):
    ports: list[_Port] | None = None


class _Spec(Part):
    nodeName: str | None = None  # noqa: N815
    containers: list[_Container] | None = None
    initContainers: list[_Container] | None = None  # noqa: N815


class _Condition(Part):
    type: str
    status: str


class _Address(Part):
    ip: str | None = None


class _Status(Part):
    phase: str | None = None
    podIP: str | None = None  # noqa: N815
    podIPs: list[_Address] | None = None  # noqa: N815
    conditions: list[_Condition] | None = None


class _Pod(Part):
    metadata: Metadata
    spec: _Spec = _Spec()
    status: _Status = _Status()


class PodReader:
    """Reads Pods that a label selector finds."""

    kind: Literal["Pod"] = "Pod"

    def __init__(self, section: KubernetesSection) -> None:
        self._section = section
        self.selector = section.selector

    def path(self, namespace: str) -> str:
        """Of the Pods of a namespace."""
        return "/api/v1/pods" if namespace == "*" else f"/api/v1/namespaces/{namespace}/pods"

    def read(self, item: Mapping[str, Any], skipped: Skipped) -> ReadObject:
        """The pods that a Pod stands for, one a port; none unless it runs and has an address."""
        pod = _Pod.model_validate(item)
        metadata, status = pod.metadata, pod.status
        key = (metadata.namespace, metadata.name)
        address = self._address(status) if status.phase == "Running" else None
        if address is None:
            return ReadObject(key, ())
        is_ready = metadata.deletionTimestamp is None and any(
            (condition.type, condition.status) == ("Ready", "True")
            for condition in status.conditions or ()
        )
        labelled = Labelled(metadata, self._section)
        found = [
            DiscoveredPod(
                url(self._section.scheme, address, port),
                is_ready,
                labelled.model,
                labelled.roles,
                pod.spec.nodeName or "",
                "/".join(key),
                labelled.rank(index),
            )
            for index, port in self._ports(pod, skipped)
        ]
        return ReadObject(key, tuple(Endpoint(pod, "", address.version) for pod in found))

    def _address(self, status: _Status) -> IPv4Address | IPv6Address | None:
        """The first of the family that is wanted."""
        texts = [status.podIP, *(address.ip for address in status.podIPs or ())]
        family = self._section.ip_family
        for address in (usable(text) for text in texts if text):
            if family in ("auto", f"ipv{address.version}"):
                return address
        return None

    def _ports(self, pod: _Pod, skipped: Skipped) -> Iterator[tuple[int, int]]:
        """Position and number of each port that is wanted and known."""
        named = {
            port.name: port.containerPort
            for container in (*(pod.spec.initContainers or ()), *(pod.spec.containers or ()))
            for port in container.ports or ()
            if port.name and port.protocol in {None, "", "TCP"}
        }
        for index, wanted in enumerate(self._section.ports):
            if wanted.isdecimal():
                yield index, int(wanted)
            elif wanted in named:
                yield index, named[wanted]
            else:
                skipped.add("port", pod.metadata.name, f"has no TCP port named {wanted}")
