"""What labels and annotations say of a pod, and the URL of its API."""

from __future__ import annotations

from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from service.config.discovery import KubernetesSection
    from service.discovery.pods import DiscoveredPod

_MAX_TEXT = 512  # characters of a name: an annotation may have 262,144
_STAGES = {"encode", "prefill", "decode"}
_ROLES = {"both": frozenset({"prefill", "decode"})}
_MAX_RANK = 2**31 - 1


class Part(BaseModel):
    """A part of an object of the API: only what is needed of it, in the API's own names."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, hide_input_in_errors=True)


class Metadata(Part):
    """An object's name and what is attached to it."""

    name: str
    namespace: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    deletionTimestamp: str | None = None  # noqa: N815 - the API's name

    def value(self, key: str) -> str:
        """Of the label, else of the annotation; empty if there is neither. Raises ValueError."""
        if not key:
            return ""
        value = (self.labels or {}).get(key) or (self.annotations or {}).get(key, "")
        if len(value) > _MAX_TEXT:
            raise ValueError(f"{key} has more than {_MAX_TEXT} characters")
        return value.strip()


class Endpoint(NamedTuple):
    """A pod that was found, and what decides between several of one address."""

    pod: DiscoveredPod
    owner: str
    """The Pod behind it, if its addresses come one by one; empty: they do not."""
    version: int
    """Of the Internet Protocol: 4 or 6."""


class Labelled:
    """What an object's labels and annotations say of the pods that it stands for."""

    def __init__(self, metadata: Metadata, section: KubernetesSection) -> None:
        self._metadata = metadata
        self._section = section

    @cached_property
    def model(self) -> str:
        """The model; empty if nothing names it. Raises ValueError."""
        return self._metadata.value(self._section.model_label)

    @cached_property
    def roles(self) -> frozenset[str]:
        """The roles: `prefill`, `prefill-decode`, `both`, or any others. Raises ValueError."""
        return _roles(self._metadata.value(self._section.role_label))

    def rank(self, port_index: int) -> int | None:
        """The rank behind the n-th port; None if nothing says it. Raises ValueError."""
        text = self._metadata.value(self._section.rank_label)
        if not text:
            return None
        if not (text.isdecimal() and text.isascii()) or int(text[:11]) + port_index > _MAX_RANK:
            raise ValueError(f"{self._section.rank_label} is no rank: {text[:40]!r}")
        return int(text) + port_index


def _roles(text: str) -> frozenset[str]:
    roles: set[str] = set()
    for role in text.replace(",", " ").split():
        stages = set(role.split("-"))
        roles |= _ROLES.get(role, stages if stages <= _STAGES else {role})
    return frozenset(roles)


def usable(address: str) -> IPv4Address | IPv6Address:
    """The address that a pod may have. Raises ValueError for any other."""
    parsed = ip_address(address)
    is_scoped = parsed.version == 6 and parsed.scope_id is not None
    if is_scoped or parsed.is_unspecified or parsed.is_multicast or parsed.is_link_local:
        raise ValueError(f"{address[:60]} is no address of a pod")
    return parsed


def url(scheme: str, address: IPv4Address | IPv6Address, port: int) -> str:
    """Such as http://10.0.0.1:8000 or http://[fd00::1]:8000."""
    host = f"[{address}]" if address.version == 6 else str(address)
    return f"{scheme}://{host}:{port}"
