"""The sections about pods that are found rather than configured."""

from __future__ import annotations

import re
from pathlib import Path  # noqa: TC003 - pydantic needs it
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator

from service.config.addresses import is_local
from service.config.paths import ReadableFile  # noqa: TC001 - pydantic needs it
from service.config.section import Section

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
_LABEL = r"([a-z0-9][a-z0-9.-]*/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
_VALUE = r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_LABEL_NAME = re.compile(_LABEL)
_REQUIREMENT = (
    rf"\s*(!?\s*{_LABEL}|{_LABEL}\s*(=|==|!=)\s*{_VALUE}"
    rf"|{_LABEL}\s+(in|notin)\s*\(\s*{_VALUE}\s*(,\s*{_VALUE}\s*)*\))\s*"
)
_SELECTOR = re.compile(rf"{_REQUIREMENT}(,{_REQUIREMENT})*")
_MAX_PORTS = 64  # of a pod: as many ranks as a host of 64 accelerators has


def _texts(ports: Any) -> Any:
    """Ports as texts: a file may have numbers, a flag cannot."""
    if not isinstance(ports, (list, tuple)):
        return ports
    return tuple(str(port) if type(port) is int else port for port in ports)


class KubernetesSection(Section):
    """Pods that a Kubernetes cluster runs: by their labels, or as the endpoints of a service.

    The service account needs no more than the verbs `list` and `watch` in each of the namespaces,
    on `pods` (API group "") for a selector, or on `endpointslices` (API group discovery.k8s.io)
    for a service: a Role for each namespace, a ClusterRole for `*`. Nothing is read with `get`.
    """

    selector: str = Field(
        "", description="labels of the pods: app=vllm,role in (prefill,decode); empty: none"
    )
    service: str = Field("", description="the endpoints of this service instead, headless or not")
    namespaces: tuple[str, ...] = Field(
        (), description="where these are; empty: kvatlas' own namespace, *: all"
    )
    ports: Annotated[tuple[str, ...], BeforeValidator(_texts)] = Field(
        ("8000",),
        description="of each pod's API: numbers, ranges such as 8000-8007, or names of ports; each "
        "port is a pod of its own",
    )
    scheme: Literal["http", "https"] = Field("http", description="of each pod's API")
    ip_family: Literal["auto", "ipv4", "ipv6"] = Field(
        "auto", description="auto: a pod's first address; of a service, IPv4 if it has both"
    )
    model_label: str = Field(
        "", description="label or annotation that names the model; without it the pod is asked"
    )
    role_label: str = Field(
        "llm-d.ai/role", description="label or annotation with the roles: prefill, decode, both"
    )
    rank_label: str = Field(
        "", description="label or annotation with the rank of a pod that is one rank of an engine"
    )
    kubeconfig: ReadableFile | None = Field(
        None, description="how to reach the cluster from outside; its current context is used"
    )
    api_server: str = Field(
        "", description="URL of the API server, such as that of `kubectl proxy`; empty: as in a pod"
    )
    token_file: ReadableFile | None = Field(
        None, description="with api_server: bearer token; read again when it changes"
    )
    ca_file: ReadableFile | None = Field(
        None, description="with api_server: its authorities; read again when they change"
    )
    timeout_seconds: float = Field(
        10.0, gt=0, le=600, description="for the API server to accept, and for each answer"
    )
    watch_seconds: float = Field(
        300.0, ge=1, le=3600, description="how long a watch lasts before it is asked for anew"
    )

    @property
    def is_enabled(self) -> bool:
        """Whether pods are looked for at all."""
        return bool(self.selector or self.service)

    @field_validator("selector")
    @classmethod
    def _selector(cls, selector: str) -> str:
        if selector and not _SELECTOR.fullmatch(selector):
            raise ValueError("this is no label selector, such as app=vllm,tier in (a,b),!canary")
        return selector

    @field_validator("service")
    @classmethod
    def _service(cls, service: str) -> str:
        if service and not is_dns_label(service):
            raise ValueError(
                "this is no name of a service: write vllm, not vllm.namespace or a URL"
            )
        return service

    @field_validator("namespaces")
    @classmethod
    def _namespaces(cls, namespaces: tuple[str, ...]) -> tuple[str, ...]:
        if "*" in namespaces and len(namespaces) > 1:
            raise ValueError("* stands for all namespaces: name no others besides")
        for namespace in namespaces:
            if namespace != "*" and not is_dns_label(namespace):
                raise ValueError(f"{namespace!r} is no name of a namespace")
        return tuple(dict.fromkeys(namespaces))

    @field_validator("ports")
    @classmethod
    def _ports(cls, ports: tuple[str, ...]) -> tuple[str, ...]:
        expanded = tuple(dict.fromkeys(port for text in ports for port in _expanded(text)))
        if not 1 <= len(expanded) <= _MAX_PORTS:
            raise ValueError(f"must be 1 to {_MAX_PORTS} ports, not {len(expanded)}")
        return expanded

    @field_validator("model_label", "role_label", "rank_label")
    @classmethod
    def _label(cls, label: str) -> str:
        if label and not _LABEL_NAME.fullmatch(label):
            raise ValueError(f"{label!r} is no name of a label, such as example.com/model")
        return label

    @field_validator("api_server")
    @classmethod
    def _api_server(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (parts.scheme not in {"http", "https"} or not parts.hostname):
            raise ValueError(f"{url!r} is not https://host:port")
        if parts.query or parts.fragment or parts.username:
            raise ValueError("write no more than https://host:port: a token belongs in token_file")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.selector and self.service:
            raise ValueError("set selector or service, not both")
        if not self.is_enabled and self.namespaces:
            raise ValueError("namespaces without selector or service: nothing would be watched")
        if self.kubeconfig is not None and self.api_server:
            raise ValueError("set kubeconfig or api_server, not both")
        if not self.api_server and (self.token_file is not None or self.ca_file is not None):
            raise ValueError("token_file and ca_file are for api_server, which is not set")
        parts = urlsplit(self.api_server)
        if self.token_file is not None and parts.scheme == "http" and not is_local(parts.netloc):
            raise ValueError("the token would be sent unencrypted: api_server must be https://")
        return self


def is_dns_label(name: str) -> bool:
    """Whether a namespace or a service can have this name."""
    return _DNS_LABEL.fullmatch(name) is not None


def _expanded(port: str) -> list[str]:
    """The ports of a range, or the port. Raises ValueError if it is neither number nor name."""
    first, separator, last = port.partition("-")
    bounds = [first, last] if separator else [first]
    if not all(part.isdecimal() and part.isascii() for part in bounds):
        if not _PORT_NAME.fullmatch(port):
            raise ValueError(f"{port!r} is no port: write a number, 8000-8007, or a port's name")
        return [port]
    low, high = int(bounds[0]), int(bounds[-1])
    if not 1 <= low <= high <= 65_535:
        raise ValueError(f"{port!r} is no port from 1 to 65535, or no range of them")
    if high - low >= _MAX_PORTS:
        raise ValueError(f"{port!r} are more than {_MAX_PORTS} ports")
    return [str(number) for number in range(low, high + 1)]


class DiscoverySection(Section):
    """Where pods are found. Each is asked what it serves and where its events come from."""

    pods: tuple[str, ...] = Field((), description="pods that are always there: http://host:port")
    dns: tuple[str, ...] = Field(
        (), description="each address behind the name is a pod: http://headless-service:port"
    )
    file: Path | None = Field(
        None, description="JSON or TOML file that lists pods; read again when it changes"
    )
    registration: bool = Field(
        default=False, description="pods can be registered at the administration"
    )
    kubernetes: KubernetesSection = KubernetesSection()
    token_file: ReadableFile | None = Field(
        None, description="bearer token for the engines: their --api-key; read anew each time"
    )
    ca_file: ReadableFile | None = Field(
        None, description="certificates of the authorities by which https is trusted"
    )
    timeout_seconds: float = Field(3.0, gt=0, le=60, description="for each answer of an engine")
    ask_seconds: float = Field(
        300.0, ge=1, le=86_400, description="how often an engine that was not lost is asked anew"
    )
    dns_seconds: float = Field(5.0, ge=0.1, le=3600, description="how often names are looked up")
    ready_seconds: float = Field(
        5.0, ge=0, le=600, description="at start, how long to wait for what is discovered"
    )

    @property
    def is_enabled(self) -> bool:
        """Whether pods may be discovered."""
        named = self.pods or self.dns or self.file
        return bool(named) or self.registration or self.kubernetes.is_enabled

    @field_validator("pods", "dns")
    @classmethod
    def _urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(pod_url(url) for url in urls)


def pod_url(url: str) -> str:
    """The URL without a slash at its end. Raises ValueError if it has a path, or no port."""
    if not url.isprintable() or " " in url:
        raise ValueError(f"{url[:100]!r} has characters that no URL has")
    parts = urlsplit(url.rstrip("/"))
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{url!r} is not http://host:port or https://host:port")
    if not parts.port:
        raise ValueError(f"{url!r} has no port: write http://{parts.netloc}:8000")
    if parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{url!r}: write no more than {parts.scheme}://host:port")
    return url.rstrip("/")
