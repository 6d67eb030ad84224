"""The gRPC servers: how they listen, whom they let in, how they stop.

In path order:

    server          one listener: addresses, services, start and stop
    transport       what it needs of a transport
    native          gRPC in the event loop of the service
    http2           the HTTP/2 below it
    grpcio          gRPC's own core
    tokens          bearer tokens, which may change
    watched         files that are read again when they change
    calls           the calls in progress, and their end when the server stops
    health          whether the service is ready, as load balancers ask
"""

from __future__ import annotations

from service.accepting import ListenError
from service.listening.server import GrpcServer, ListenerDiedError
from service.listening.transport import ListenerSettings

__all__ = ["GrpcServer", "ListenError", "ListenerDiedError", "ListenerSettings"]
