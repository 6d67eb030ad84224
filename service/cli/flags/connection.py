"""Flags that say where the service is, and with which credentials."""

from __future__ import annotations

import click

from service.cli.flags.command import Option
from service.cli.flags.values import FILE, POSITIVE_NUMBER, TEXT

_SECTION = "Connection ([client] in the configuration has the same)"
_SERVER = "KVATLAS_SERVER"
_ADMIN_SERVER = "KVATLAS_ADMIN_SERVER"


def connection(*, administration: bool = False) -> list[click.Parameter]:
    """Flags of every command that calls a service.

    Args:
        administration: whether it calls the listener for operators rather than the other one.
    """
    what = f"the service: host:port or unix:/path [{_SERVER}; default: grpc.listen on this host]"
    if administration:
        what = (
            "the service's administration: host:port or unix:/path "
            f"[{_ADMIN_SERVER}; default: admin.listen on this host]"
        )

    return [
        _flag("--server", "ADDRESS", f"Address of {what}."),
        _file("--config", "Configuration file (TOML) of the service, or one with [client] alone."),
        Option("--tls", section=_SECTION, is_flag=True, default=None, help="Speak TLS."),
        _file("--ca-file", "Authorities that the service is known by; implies --tls."),
        _file("--certificate-file", "Certificate of this client; implies --tls."),
        _file("--key-file", "Key of this client."),
        _file("--token-file", "File with a bearer token."),
        _flag("--server-name", "NAME", "Name in the service's certificate."),
    ]


def call(*, administration: bool = False, seconds: float = 5.0) -> list[click.Parameter]:
    """Flags of every command that makes a call and shows its answer.

    Args:
        administration: as for `connection`.
        seconds: how long it waits unless told otherwise.
    """
    return [
        click.Option(
            ["--json"],
            is_flag=True,
            help="Print JSON: the protobuf message, with the field names of the proto.",
        ),
        click.Option(
            ["--timeout"],
            type=POSITIVE_NUMBER,
            default=seconds,
            show_default=True,
            metavar="SECONDS",
            help="How long to wait for the answer.",
        ),
        *connection(administration=administration),
    ]


def metrics() -> click.Parameter:
    """The flag of commands that read the service's metrics."""
    return _flag(
        "--metrics",
        "ADDRESS",
        "Address of the service's metrics: host:port [default: metrics.listen on the host called].",
    )


def _flag(flag: str, metavar: str, text: str) -> click.Parameter:
    return Option(flag, section=_SECTION, metavar=metavar, type=TEXT, help=text)


def _file(flag: str, text: str) -> click.Parameter:
    return Option(flag, section=_SECTION, type=FILE, metavar="FILE", help=text)
