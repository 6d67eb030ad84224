"""Where an engine's sockets are reached: its own address in place of wildcards, and no other."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

_WILDCARDS = frozenset({"*", "0.0.0.0", "::", "[::]"})  # noqa: S104 - of an engine
_MOST_PORT = 65_535


def reachable(endpoint: str, url: str, addresses: AbstractSet[str]) -> str:
    """The ZMQ address at which a socket of the engine at `url` is reached; empty if nowhere.

    An engine's word leads to the engine's own host alone.

    Args:
        endpoint: as the engine says it.
        url: of its API.
        addresses: the IP addresses behind the host in `url`.
    """
    scheme, separator, rest = endpoint.partition("://")
    host = urlsplit(url).hostname or ""
    if scheme == "ipc" and rest and is_loopback(host):
        return endpoint
    told, _, port = rest.rpartition(":")
    if not separator or scheme != "tcp" or not port.isdecimal() or not told:
        return ""
    if not 0 < int(port) <= _MOST_PORT:
        return ""
    if told not in _WILDCARDS and told.strip("[]").lower() not in {host, *addresses}:
        return ""
    return f"tcp://[{host}]:{int(port)}" if ":" in host else f"tcp://{host}:{int(port)}"


def is_loopback(host: str) -> bool:
    """Whether a host is this one."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
