"""What an object of kind EndpointSlice says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from service.discovery.kubernetes.collection import ReadObject
from service.discovery.kubernetes.labels import Endpoint, Labelled, Metadata, Part, url, usable
from service.discovery.pods import DiscoveredPod

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from service.config.discovery import KubernetesSection
    from service.discovery.kubernetes.status import Skipped

_MAX_ENDPOINTS = 1000  # of a slice: the API allows no more


class _Port(Part):
    name: str | None = None
    port: int | None = Field(None, ge=1, le=65_535)
    protocol: str | None = None


class _Conditions(Part):
    ready: bool | None = None
    terminating: bool | None = None


class _Target(Part):
    kind: str = ""
    namespace: str = ""
    name: str = ""


class _Endpoint(Part):
    addresses: list[str] = Field(min_length=1)
    conditions: _Conditions | None = None
    nodeName: str | None = None  # noqa: N815 - the API's names
    targetRef: _Target | None = None  # noqa: N815

    @property
    def is_ready(self) -> bool:
        """Nothing said counts as ready; one that terminates takes no more requests."""
        conditions = self.conditions or _Conditions()
        return conditions.ready is not False and not conditions.terminating


class _Slice(Part):
    metadata: Metadata
    addressType: str = ""  # noqa: N815
    endpoints: list[Any] | None = Field(None, max_length=_MAX_ENDPOINTS)
    ports: list[_Port] | None = None


class EndpointSliceReader:
    """Reads the EndpointSlices of a service."""

    kind: Literal["EndpointSlice"] = "EndpointSlice"

    def __init__(self, section: KubernetesSection) -> None:
        self._section = section
        self.selector = f"kubernetes.io/service-name={section.service}"

    def path(self, namespace: str) -> str:
        """Of the EndpointSlices of a namespace."""
        within = "" if namespace == "*" else f"/namespaces/{namespace}"
        return f"/apis/discovery.k8s.io/v1{within}/endpointslices"

    def read(self, item: Mapping[str, Any], skipped: Skipped) -> ReadObject:
        """The pods of a slice, one an endpoint and port; those that cannot be read are counted."""
        found = _Slice.model_validate(item)
        key = (found.metadata.namespace, found.metadata.name)
        if not self._is_wanted(found.addressType):
            return ReadObject(key, ())
        labelled = Labelled(found.metadata, self._section)
        ports = list(self._ports(found, skipped)) if found.endpoints else []
        endpoints: list[Endpoint] = []
        for entry in found.endpoints or ():
            try:
                endpoint = _Endpoint.model_validate(entry)
                endpoints += self._endpoints(endpoint, found.metadata, labelled, ports)
            except ValueError as error:
                skipped.add("unreadable", found.metadata.name, str(error))
        return ReadObject(key, tuple(endpoints))

    def _is_wanted(self, address_type: str) -> bool:
        family = self._section.ip_family
        return address_type in {"IPv4", "IPv6"} and family in {"auto", address_type.lower()}

    def _endpoints(
        self,
        endpoint: _Endpoint,
        metadata: Metadata,
        labelled: Labelled,
        ports: list[tuple[int, int]],
    ) -> Iterator[Endpoint]:
        address = usable(endpoint.addresses[0])  # the API gives no meaning to further ones
        target = endpoint.targetRef or _Target()
        owner = ""
        if target.name:
            owner = f"{target.namespace or metadata.namespace}/{target.name}"
        for index, port in ports:
            pod = DiscoveredPod(
                url(self._section.scheme, address, port),
                endpoint.is_ready,
                labelled.model,
                labelled.roles,
                endpoint.nodeName or "",
                owner or f"{metadata.namespace}/{address}",
                labelled.rank(index),
            )
            yield Endpoint(pod, owner, address.version)

    def _ports(self, found: _Slice, skipped: Skipped) -> Iterator[tuple[int, int]]:
        """Position and number of each port that is wanted and known."""
        named = {
            port.name: port.port
            for port in found.ports or ()
            if port.name and port.protocol in {None, "", "TCP"}
        }
        for index, wanted in enumerate(self._section.ports):
            number = int(wanted) if wanted.isdecimal() else named.get(wanted)
            if number is None:
                skipped.add("port", found.metadata.name, f"has no TCP port named {wanted}")
            else:
                yield index, number
