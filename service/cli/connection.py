"""The service that a command calls: where it is, and with which credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from service import config

if TYPE_CHECKING:
    from service.cli.flags.command import Options
    from service.config import ClientSettings


class UsageError(ValueError):
    """The value of a flag or a setting is wrong."""


class Service(NamedTuple):
    """Where a service is, and what a client of it needs."""

    address: str
    token: str
    """Empty: none is sent."""
    pem: Pem | None
    """None: nothing is encrypted."""
    server_name: str
    """Name in the service's certificate. Empty: the host of the address."""


class Pem(NamedTuple):
    """Certificates that have been looked at: gRPC ends the process if they are useless."""

    authorities: bytes | None
    certificate: bytes | None = None
    key: bytes | None = None


def settings(options: Options, *, administration: bool = False) -> ClientSettings:
    """What the flags, the environment and the configuration say. Raises UsageError."""
    names = ("tls", "ca_file", "certificate_file", "key_file", "token_file", "server_name")
    flags: dict[str, Any] = {name: getattr(options, name) for name in names}
    flags["admin" if administration else "server"] = options.server
    flags["metrics"] = getattr(options, "metrics", None)
    given = {name: value for name, value in flags.items() if value}
    try:
        return config.load_client(options.config, given)
    except config.ConfigurationError as error:
        raise UsageError("; ".join(error.faults)) from None


def find_service(options: Options, *, administration: bool = False) -> Service:
    """Return the service that a command calls, or its administration. Raises UsageError."""
    found = settings(options, administration=administration)
    address = found.admin if administration else found.server
    if not address:
        section = "admin" if administration else "grpc"
        raise UsageError(f"{section}.listen is empty: name an address with --server")
    try:
        return Service(address, _token(found), _pem(found), found.server_name)
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(str(error)) from None


def _pem(found: ClientSettings) -> Pem | None:
    if not found.uses_tls:
        return None
    authorities = None if found.ca_file is None else config.read_authorities(found.ca_file)
    if found.certificate_file is None and found.key_file is None:
        return Pem(authorities)
    if found.certificate_file is None or found.key_file is None:
        raise UsageError("--certificate-file and --key-file need each other")
    own = config.read_certificates(found.certificate_file, found.key_file, found.ca_file)
    return Pem(authorities, own.chain, own.key)


def _token(found: ClientSettings) -> str:
    if found.token_file is None:
        return ""
    return config.read_tokens(found.token_file)[0].decode()
