"""Makes one call, and shows its answer or why there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import json_format

from service.cli.connection import UsageError, connect
from service.terminal import complain

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from service.cli.flags.command import Options
    from service.cli.screen.tables import Part


def ask(
    options: Options,
    call: Callable[..., Any],
    shown: Callable[[Any], list[Part]],
    *,
    administration: bool = False,
) -> int:
    """Make one call and print its answer.

    Args:
        options: of the command.
        call: makes it, on a channel.
        shown: the answer for people.
        administration: whether the call goes to the listener for operators.

    Returns:
        The exit status: 1 if the service refuses the call or cannot be reached, 2 if a flag's
        value is malformed.
    """
    try:
        connection = connect(options, administration=administration)
        try:
            with connection.channel as channel:
                answer = call(channel, timeout=options.timeout, metadata=connection.metadata)
        except grpc.RpcError as error:
            return failed(error, connection.address)
    except UsageError as error:
        complain(str(error))
        return 2
    if options.json:
        print(as_json(answer))
    else:
        from service.cli.screen.tables import show  # rich is not needed for JSON

        show(*shown(answer))
    return 0


def as_json(message: Message, *, indent: int | None = 2) -> str:
    """The message as JSON, with the names of its fields as in the proto. All fields are there."""
    return json_format.MessageToJson(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        indent=indent,
    )


def failed(error: grpc.RpcError, server: str) -> int:
    """Print why a call to `server` failed, and return the exit status."""
    status, detail = error.code(), error.details() or ""
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
