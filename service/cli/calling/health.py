"""`kvatlas health`: whether the service is ready.

Container runtimes run it every few seconds, so it imports neither protobuf nor rich: the two
messages are an empty one and one of a single number.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc

from service.cli.connection import UsageError, connect
from service.terminal import complain

if TYPE_CHECKING:
    from service.cli.flags.command import Options

_CHECK = "/grpc.health.v1.Health/Check"
_STATUSES = {
    b"": "UNKNOWN",
    b"\x08\x00": "UNKNOWN",
    b"\x08\x01": "SERVING",
    b"\x08\x02": "NOT_SERVING",
    b"\x08\x03": "SERVICE_UNKNOWN",
}
"""A HealthCheckResponse -> the name of its status."""


def health(options: Options) -> int:
    """Say whether the service is ready. Returns the exit status: 0 if it is, 1 if not."""
    try:
        connection = connect(options)
        with connection.channel as channel:
            call: Any = channel.unary_unary(_CHECK)
            answer = call(b"", timeout=options.timeout, metadata=connection.metadata)
    except UsageError as error:
        complain(str(error))
        return 2
    except grpc.RpcError as error:
        complain(f"{error.code().name}: {error.details()}")
        return 1
    status = _STATUSES.get(bytes(answer), "UNKNOWN")
    print(json.dumps({"status": status}, indent=2) if options.json else status)
    return 0 if status == "SERVING" else 1
