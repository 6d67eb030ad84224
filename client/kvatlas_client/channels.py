"""Addresses, TLS and balancing -> a gRPC channel."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import grpc

from kvatlas_client.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from kvatlas_client.retries import Retry

Balance = Literal["round_robin", "pick_first"]
Options = tuple[tuple[str, Any], ...]

_MAX_ANSWER_BYTES = 64 << 20
_STREAMS = (
    ("kvatlas.v1.ScoringService", "ScoreStream"),
    ("kvatlas.v1.FleetService", "WatchPods"),
    ("kvatlas.v1.FleetService", "RecordFrames"),
)
# A gateway has milliseconds: a service that is back is to be used again at once, and a connection
# that is dead is to be noticed. A name is looked up again when a connection ends: by default not
# twice in 30 seconds, in which a rolling update may replace every address that is known.
_OPTIONS: Options = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
)


@dataclass(frozen=True, slots=True)
class Tls:
    """How the service and this client prove who they are; all of it in PEM."""

    ca: bytes | None = None
    """Authorities that the service is known by. None: those of the system."""
    certificate: bytes | None = None
    """Certificate of this client, with the chain that leads to its authority."""
    key: bytes | None = None
    """Key of this client."""
    server_name: str = ""
    """Name in the service's certificate. Empty: the host of the address."""

    @classmethod
    def from_files(
        cls,
        ca: str | PathLike[str] | None = None,
        certificate: str | PathLike[str] | None = None,
        key: str | PathLike[str] | None = None,
        server_name: str = "",
    ) -> Tls:
        """Read the files. Raises OSError."""
        contents = [
            None if path is None else Path(path).read_bytes() for path in (ca, certificate, key)
        ]
        return cls(contents[0], contents[1], contents[2], server_name)

    def credentials(self) -> grpc.ChannelCredentials:
        """Return what a channel is opened with."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a client connects to, and how. Raises ValueError for addresses that do not fit."""

    addresses: str | Sequence[str]
    """One address (`host:port`, `unix:/path`, or another name that gRPC resolves), or several
    `ip:port`. A host may have several IP addresses."""
    tls: Tls | None
    """None: nothing is encrypted."""
    balance: Balance
    """With several addresses: each call to the next one, or all to the first that is reached."""
    retry: Retry
    options: Options
    """Further arguments of the channel; they win over those of this package."""

    def target(self) -> str:
        """Return the name that gRPC resolves."""
        given = [self.addresses] if isinstance(self.addresses, str) else list(self.addresses)
        if not given or not all(given):
            raise ValueError("addresses: give at least one, and no empty one")
        if len(given) == 1:
            return given[0]
        versions = {_ip_version(address) for address in given}
        if len(versions) != 1 or None in versions:
            raise ValueError(
                f"addresses: {', '.join(given)}: several addresses are all ipv4:port or all"
                " [ipv6]:port; give several hosts one name in DNS, and that name alone"
            )
        if self.tls is not None and not self.tls.server_name:
            raise ValueError("server_name: with TLS and several addresses, set it")
        return f"ipv{versions.pop()}:{','.join(given)}"

    def arguments(self) -> Options:
        """Return the arguments of the channel."""
        named = dict(_OPTIONS)
        named["grpc.primary_user_agent"] = f"kvatlas-client/{__version__}"
        named["grpc.service_config"] = json.dumps(self._service_config())
        if self.tls is not None and self.tls.server_name:
            named["grpc.ssl_target_name_override"] = self.tls.server_name
        return tuple((named | dict(self.options)).items())

    def _service_config(self) -> dict[str, Any]:
        config: dict[str, Any] = {"loadBalancingConfig": [{self.balance: {}}]}
        if (policy := self.retry.policy()) is not None:
            # A stream is opened again by those who know what was not answered.
            streams = [{"service": service, "method": method} for service, method in _STREAMS]
            config["methodConfig"] = [{"name": streams}, {"name": [{}], "retryPolicy": policy}]
        return config


def _ip_version(address: str) -> int | None:
    """Return 4 or 6 for an address like 10.0.0.1:80 or [::1]:80; None for another one."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return None
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).version
    except ValueError:
        return None
