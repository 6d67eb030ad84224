"""The client through which a command calls its service; one call, and what is shown of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import json_format
from kvatlas_client import Client, KvatlasError, Retry, Tls

from service.cli.connection import UsageError, find_service
from service.terminal import complain

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from service.cli.flags.command import Options
    from service.cli.screen.tables import Part


_NO_RETRIES = Retry(attempts=1)  # whoever sits before the screen repeats the command
_SECONDS = 5.0  # where a command has no --timeout, and no call that it is for


class CommandClient(Client):
    """A client that knows its only address."""

    address: str


def open_client(options: Options, *, administration: bool = False) -> CommandClient:
    """Return a client of the service, or of its administration. Raises UsageError."""
    service = find_service(options, administration=administration)
    tls = None
    if service.pem is not None:
        authorities, certificate, key = service.pem
        tls = Tls(authorities, certificate, key, service.server_name)
    try:
        client = CommandClient(
            service.address,
            tls=tls,
            token=service.token,
            timeout=getattr(options, "timeout", _SECONDS),
            retry=_NO_RETRIES,
            balance="pick_first",
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    client.address = service.address
    return client


def ask(
    options: Options,
    call: Callable[[Client], Any],
    shown: Callable[[Any], list[Part]],
    *,
    administration: bool = False,
) -> int:
    """Make one call and print its answer.

    Args:
        options: of the command.
        call: makes it, with a client.
        shown: the answer for people.
        administration: whether the call goes to the listener for operators.

    Returns:
        The exit status: 1 if the service refuses the call or cannot be reached, 2 if a flag's
        value is malformed.
    """
    try:
        with open_client(options, administration=administration) as client:
            try:
                answer = call(client)
            except KvatlasError as error:
                return failed(error, client.address)
    except UsageError as error:
        complain(str(error))
        return 2
    if options.json:
        print(as_json(answer))
    else:
        from service.cli.screen.tables import show  # rich is not needed for JSON

        show(*shown(answer))
    return 0


def as_json(message: Message | None, *, indent: int | None = 2) -> str:
    """The message as JSON, with the names of its fields as in the proto. All fields are there."""
    if message is None:  # there is nothing to say
        return "{}"
    return json_format.MessageToJson(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        indent=indent,
    )


def failed(error: KvatlasError, server: str) -> int:
    """Print why a call to `server` failed, and return the exit status."""
    status, detail = error.code, error.message
    if "handshake" in detail.lower():
        detail = f"no TLS with {server} ({detail}); see --tls and --ca-file"
    elif status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        detail = f"no answer from {server} ({detail}); is `kvatlas serve` running?"
    elif status is grpc.StatusCode.UNAUTHENTICATED:
        detail = f"{detail}; give one with --token-file"
    elif status is grpc.StatusCode.UNIMPLEMENTED and not detail:
        detail = f"{server} does not serve this call"
    complain(f"{status.name}: {detail}")
    return 1
