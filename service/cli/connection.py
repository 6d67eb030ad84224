"""Connects a client command to a service: where it is, and with which credentials."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from service.config import ConfigurationError, load_client, read_tokens

if TYPE_CHECKING:
    import argparse

    from service.config import ClientSection


class UsageError(ValueError):
    """The value of a flag or a setting is wrong."""


class Connection(NamedTuple):
    """A service that can be called."""

    address: str
    channel: grpc.Channel
    metadata: list[tuple[str, str]]
    """What to send with each call."""


def add_connection(
    parser: argparse.ArgumentParser, *, administration: bool = False
) -> list[argparse.Action]:
    """Add the flags that say where the service is.

    Args:
        parser: of a command.
        administration: whether it calls the listener for operators rather than the other one.
    """
    what, default = "the service", "grpc.listen on this host, localhost:50051"
    if administration:
        what, default = "the service's administration", "admin.listen on this host, localhost:50052"
    group = parser.add_argument_group("connection", "[client] in the configuration has the same")

    def add(flag: str, metavar: str, summary: str) -> argparse.Action:
        return group.add_argument(flag, metavar=metavar, help=summary)

    parser.set_defaults(administration=administration)
    return [
        add("--server", "ADDRESS", f"address of {what}: host:port or unix:/path ({default})"),
        group.add_argument(
            "--config",
            type=Path,
            metavar="FILE",
            help="configuration file (TOML) of the service or of its clients",
        ),
        group.add_argument("--tls", action="store_true", default=None, help="speak TLS"),
        add("--ca-file", "FILE", "authorities that the service is known by; implies --tls"),
        add("--certificate-file", "FILE", "certificate of this client; implies --tls"),
        add("--key-file", "FILE", "key of this client"),
        add("--token-file", "FILE", "file with a bearer token"),
        add("--server-name", "NAME", "name in the service's certificate"),
    ]


def connect(options: argparse.Namespace) -> Connection:
    """A channel as the flags, the environment and the configuration say. Raises UsageError."""
    names = ("tls", "ca_file", "certificate_file", "key_file", "token_file", "server_name")
    flags: dict[str, Any] = {name: getattr(options, name) for name in names}
    flags["admin" if options.administration else "server"] = options.server
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        settings = load_client(options.config, {"client": given} if given else {})
    except ConfigurationError as error:
        raise UsageError("; ".join(error.faults)) from None
    address = settings.administration if options.administration else settings.server
    try:
        return Connection(address, _channel(address, settings.client), _metadata(settings.client))
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(str(error)) from None


def _channel(address: str, section: ClientSection) -> grpc.Channel:
    arguments = []
    if section.server_name:
        arguments.append(("grpc.ssl_target_name_override", section.server_name))
    if section.uses_tls:
        files = (section.ca_file, section.key_file, section.certificate_file)
        contents = [None if file is None else file.read_bytes() for file in files]
        credentials = grpc.ssl_channel_credentials(*contents)
        return grpc.secure_channel(address, credentials, arguments)
    return grpc.insecure_channel(address, arguments)


def _metadata(section: ClientSection) -> list[tuple[str, str]]:
    if section.token_file is None:
        return []
    token = read_tokens(section.token_file)[0].decode()
    return [("authorization", f"Bearer {token}")]
