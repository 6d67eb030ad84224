"""Where the store is: its URL, parsed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from pathlib import Path

_PORT = 6379
_SENTINEL_PORT = 26379
_SCHEMES = {"redis": False, "rediss": True, "valkey": False, "valkeys": True}
_KINDS = ("", "cluster", "sentinel")
_UNKNOWN_SCHEME = (
    "the store's URL must begin with redis://, rediss://, valkey:// or valkeys:// (with "
    "+cluster or +sentinel after the name where there is one), or with unix://"
)


class AddressError(ValueError):
    """A URL does not name a store."""


@dataclass(frozen=True)
class StoreAddress:
    """One server, a cluster, or a server that sentinels know. `repr` shows no password."""

    hosts: tuple[tuple[str, int], ...] = ()
    """Host and port of the server, of some servers of the cluster, or of the sentinels."""
    path: str = ""
    """Of a Unix socket, instead of hosts."""
    kind: str = ""
    """cluster or sentinel; empty for one server."""
    service: str = ""
    """The server's name among the sentinels."""
    tls: bool = False
    username: str = ""
    password: str = ""
    database: int = 0
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    timeout: float = 1.0
    """Seconds, of one command and of connecting."""

    @property
    def is_cluster(self) -> bool:
        """Whether keys are spread over several servers."""
        return self.kind == "cluster"

    def __repr__(self) -> str:
        where = self.path or ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"<StoreAddress {self.kind or 'server'} {where}{' over TLS' if self.tls else ''}>"


def parse_address(url: str) -> StoreAddress:
    """Parse a URL. Raises AddressError.

    redis://[user:password@]host[:port][,host[:port]...][/database], likewise rediss, valkey and
    valkeys (with TLS); redis+cluster://...; redis+sentinel://.../service; unix:///path.
    """
    scheme, separator, _ = url.partition("://")
    if scheme == "unix" and separator:
        return _unix_address(url)
    server, _, kind = scheme.partition("+")
    if not separator or server not in _SCHEMES or kind not in _KINDS:
        raise AddressError(_UNKNOWN_SCHEME)
    netloc, _, path = url.partition("://")[2].partition("/")
    credentials, at, hosts = netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    if not at:
        user = password = ""
    port = _SENTINEL_PORT if kind == "sentinel" else _PORT
    addresses = tuple(_host_port(host, port) for host in hosts.split(","))
    if len(addresses) > 1 and not kind:
        raise AddressError(
            "several hosts need +cluster or +sentinel after the name, as in redis+cluster://"
        )
    service, database = (path, "") if kind == "sentinel" else ("", path)
    if kind == "sentinel" and not service:
        raise AddressError(
            "the name of the service must follow the sentinels' hosts, as in /mymaster"
        )
    if kind == "cluster" and database:
        raise AddressError("a cluster has no databases")
    return StoreAddress(
        hosts=addresses,
        kind=kind,
        service=unquote(service),
        tls=_SCHEMES[server],
        username=unquote(user),
        password=unquote(password),
        database=_database(database),
    )


def _unix_address(url: str) -> StoreAddress:
    parts = urlsplit(url)
    if not parts.path:
        raise AddressError("the path of a socket must follow unix://")
    database = parse_qs(parts.query).get("db", [""])[0]
    credentials = parts.netloc.rpartition("@")[0]
    user, _, password = credentials.partition(":")
    return StoreAddress(
        path=unquote(parts.path),
        username=unquote(user),
        password=unquote(password),
        database=_database(database),
    )


def _database(text: str) -> int:
    if text and not text.isdigit():
        raise AddressError(f"a database is a number, not {text!r}")
    return int(text or 0)


def _host_port(text: str, default_port: int) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or port.endswith("]"):
        host, port = text, str(default_port)
    if not host or not port.isdigit() or int(port) > 65_535:
        raise AddressError(f"{text!r} is not host or host:port")
    return host.strip("[]"), int(port)
