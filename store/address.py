"""Where the store is, as one URL says."""

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


class AddressError(ValueError):
    """A URL that says of no store where it is."""


@dataclass(frozen=True)
class StoreAddress:
    """One server, a cluster or one that sentinels know.

    hosts: host and port of the server, of some of the cluster's, or of the sentinels. path: of a
    Unix socket instead. kind: "" (a server), cluster or sentinel. service: what the sentinels call
    it. password is left out of the representation.
    """

    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    kind: str = ""
    service: str = ""
    tls: bool = False
    username: str = ""
    password: str = ""
    database: int = 0
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    timeout: float = 1.0

    @property
    def is_cluster(self) -> bool:
        """Whether keys are spread over several servers."""
        return self.kind == "cluster"

    def __repr__(self) -> str:
        where = self.path or ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"<StoreAddress {self.kind or 'server'} {where}{' over TLS' if self.tls else ''}>"


def parse_address(url: str) -> StoreAddress:
    """What a URL says. Raises AddressError.

    redis://[user:password@]host[:port][,host[:port]...][/database], likewise rediss, valkey and
    valkeys (with TLS); redis+cluster://...; redis+sentinel://.../service; unix:///path.
    """
    scheme, separator, _ = url.partition("://")
    if scheme == "unix" and separator:
        return _unix_address(url)
    server, _, kind = scheme.partition("+")
    if not separator or server not in _SCHEMES or kind not in _KINDS:
        raise AddressError(
            "the store's URL begins with redis://, rediss://, valkey:// or valkeys:// (or one of "
            "these with +cluster or +sentinel after the name), or with unix://"
        )
    netloc, _, path = url.partition("://")[2].partition("/")
    credentials, at, hosts = netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    if not at:
        user = password = ""
    port = _SENTINEL_PORT if kind == "sentinel" else _PORT
    addresses = tuple(_host_port(host, port) for host in hosts.split(","))
    if len(addresses) > 1 and not kind:
        raise AddressError("several hosts are those of a cluster or of sentinels: say which")
    service, database = (path, "") if kind == "sentinel" else ("", path)
    if kind == "sentinel" and not service:
        raise AddressError("after the sentinels' hosts comes the name of the service: /mymaster")
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
        raise AddressError("after unix:// comes the path of a socket")
    database = parse_qs(parts.query).get("db", [""])[0]
    credentials = parts.netloc.rpartition("@")[0]
    user, _, password = credentials.partition(":")
    return StoreAddress(
        path=unquote(parts.path),
        username=unquote(user),
        password=unquote(password),
        database=_database(database),
    )


def _database(said: str) -> int:
    if said and not said.isdigit():
        raise AddressError(f"a database is a number, not {said!r}")
    return int(said or 0)


def _host_port(said: str, port: int) -> tuple[str, int]:
    host, separator, number = said.rpartition(":")
    if not separator or number.endswith("]"):
        host, number = said, str(port)
    if not host or not number.isdigit() or int(number) > 65_535:
        raise AddressError(f"{said!r} is not host or host:port")
    return host.strip("[]"), int(number)
