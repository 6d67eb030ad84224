"""Addresses to listen on: what is well-formed, what is local, which two collide."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

_EVERYWHERE = {"*", "", "0.0.0.0", "::"}  # noqa: S104 - compared with, not bound


def check_host_port(address: str) -> None:
    """Raises ValueError unless the address is host:port."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"{address!r} is not host:port with a port from 0 to 65535")


def check_http_url(url: str) -> None:
    """Raises ValueError unless this is the URL of an HTTP server, without credentials in it."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"{url!r} is not http://host:port or https://host:port")
    if parts.username is not None or parts.password is not None:
        raise ValueError("the URL contains credentials, which belong into a file")
    if parts.query or parts.fragment:
        raise ValueError(f"{url!r} has more than an address and a path")


def is_local(address: str) -> bool:
    """Whether only this host reaches the address: a Unix socket, or a loopback interface."""
    if address.startswith("unix:"):
        return True
    host = _host(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def to_connect(address: str) -> str:
    """The address at which a client on this host reaches what listens on `address`."""
    if address.startswith("unix:") or _host(address) not in _EVERYWHERE:
        return address
    return f"localhost:{address.rpartition(':')[2]}"


def collide(one: str, other: str) -> bool:
    """Whether two listeners cannot have these two addresses."""
    if one.startswith("unix:") or other.startswith("unix:"):
        return one == other
    if one.rpartition(":")[2] != other.rpartition(":")[2] or one.endswith(":0"):
        return False
    hosts = {_host(one), _host(other)}
    return len(hosts) == 1 or bool(hosts & _EVERYWHERE)


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")
