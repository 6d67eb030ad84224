"""gRPC's own core as a transport, which runs in threads of its own.

In path order:

    transport       one server of grpc.aio: start and stop
    options         bounds of its connections
    credentials     TLS, with certificates that may change
    tolerant        a server that a malformed method name does not end
    connections     the sockets behind it
"""

from __future__ import annotations

from service.listening.grpcio.transport import GrpcioTransport

__all__ = ["GrpcioTransport"]
