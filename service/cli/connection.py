"""Connects a command to a service: where it is, and with which credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from service import config

if TYPE_CHECKING:
    from service.cli.flags.command import Options
    from service.config import ClientSettings


class UsageError(ValueError):
    """The value of a flag or a setting is wrong."""


class Connection(NamedTuple):
    """A service that can be called."""

    address: str
    channel: grpc.Channel
    metadata: list[tuple[str, str]]
    """What to send with each call."""


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


def connect(options: Options, *, administration: bool = False) -> Connection:
    """A channel to the service, or to its administration. Raises UsageError."""
    found = settings(options, administration=administration)
    address = found.admin if administration else found.server
    if not address:
        section = "admin" if administration else "grpc"
        raise UsageError(f"{section}.listen is empty: name an address with --server")
    try:
        return Connection(address, _channel(address, found), _metadata(found))
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(str(error)) from None


def _channel(address: str, found: ClientSettings) -> grpc.Channel:
    arguments = []
    if found.server_name:
        arguments.append(("grpc.ssl_target_name_override", found.server_name))
    if found.uses_tls:
        return grpc.secure_channel(address, _credentials(found), arguments)
    return grpc.insecure_channel(address, arguments)


def _credentials(found: ClientSettings) -> grpc.ChannelCredentials:
    """Certificates that have been looked at: gRPC ends the process if they are useless."""
    authorities = None if found.ca_file is None else config.read_authorities(found.ca_file)
    if found.certificate_file is None and found.key_file is None:
        return grpc.ssl_channel_credentials(authorities)
    if found.certificate_file is None or found.key_file is None:
        raise UsageError("--certificate-file and --key-file need each other")
    own = config.read_certificates(found.certificate_file, found.key_file, found.ca_file)
    return grpc.ssl_channel_credentials(authorities, own.key, own.chain)


def _metadata(found: ClientSettings) -> list[tuple[str, str]]:
    if found.token_file is None:
        return []
    token = config.read_tokens(found.token_file)[0].decode()
    return [("authorization", f"Bearer {token}")]
