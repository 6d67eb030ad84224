"""The sections about pods that are found rather than configured."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic needs it
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from service.config.paths import ReadableFile  # noqa: TC001 - pydantic needs it
from service.config.section import Section


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
        return bool(self.pods or self.dns or self.file or self.registration)

    @field_validator("pods", "dns")
    @classmethod
    def _urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(pod_url(url) for url in urls)


def pod_url(url: str) -> str:
    """The URL without a slash at its end. Raises ValueError if it has a path, or no port."""
    parts = urlsplit(url.rstrip("/"))
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{url!r} is not http://host:port or https://host:port")
    if parts.port is None:
        raise ValueError(f"{url!r} has no port: write http://{parts.netloc}:8000")
    if parts.path or parts.query or parts.fragment or parts.username:
        raise ValueError(f"{url!r}: write no more than {parts.scheme}://host:port")
    return url.rstrip("/")
