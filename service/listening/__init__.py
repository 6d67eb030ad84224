"""The gRPC servers: how they listen, whom they let in, how they stop.

In path order:

    server          one listener: addresses, services, start and stop
    options         bounds of its connections
    credentials     TLS, with certificates that may change
    tokens          bearer tokens, which may change too
    watched         files that are read again when they change
    tolerant        a server that a malformed method name does not end
    calls           the calls in progress, and their end when the server stops
    connections     the sockets behind them
    health          whether the service is ready, as load balancers ask
"""

from __future__ import annotations

from service.listening.server import GrpcServer, ListenerDiedError, ListenError

__all__ = ["GrpcServer", "ListenError", "ListenerDiedError"]
