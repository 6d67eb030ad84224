"""`kvatlas health`: whether the service is ready.

Container runtimes run it every few seconds, so it imports neither protobuf nor rich: the two
messages are an empty one and one of a single number. Nor does it import the client of the others.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc

from service.cli.connection import UsageError, find_service
from service.terminal import complain

if TYPE_CHECKING:
    from service.cli.connection import Service
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
        service = find_service(options)
        token = [("authorization", f"Bearer {service.token}")] if service.token else []
        with _channel(service) as channel:
            call: Any = channel.unary_unary(_CHECK)
            answer = call(b"", timeout=options.timeout, metadata=token)
    except UsageError as error:
        complain(str(error))
        return 2
    except grpc.RpcError as error:
        complain(f"{error.code().name}: {error.details()}")
        return 1
    status = _STATUSES.get(bytes(answer), "UNKNOWN")
    print(json.dumps({"status": status}, indent=2) if options.json else status)
    return 0 if status == "SERVING" else 1


def _channel(service: Service) -> grpc.Channel:
    if service.pem is None:
        return grpc.insecure_channel(service.address)
    authorities, certificate, key = service.pem
    name = [("grpc.ssl_target_name_override", service.server_name)] if service.server_name else []
    credentials = grpc.ssl_channel_credentials(authorities, key, certificate)
    return grpc.secure_channel(service.address, credentials, name)
