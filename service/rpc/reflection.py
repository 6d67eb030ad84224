"""Server reflection, v1 and v1alpha, so that grpcurl and the like need no .proto files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.rpc.handlers import MethodRegistry

V1_NAME = "grpc.reflection.v1.ServerReflection"


def enable_reflection(server: MethodRegistry, services: Iterable[str]) -> None:
    """Add reflection for the named services to a server that is not started yet.

    The reflection package ships v1alpha only. The messages of v1 are the same, under another name.
    """
    servicer = reflection.aio.ReflectionServicer([*services, reflection.SERVICE_NAME])
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in (V1_NAME, reflection.SERVICE_NAME):
        server.add_registered_method_handlers(name, {"ServerReflectionInfo": handler})
