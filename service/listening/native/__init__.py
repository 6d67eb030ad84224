"""gRPC in the event loop of the service, over `http2`: a call costs a quarter of gRPC's core.

In path order:

    transport       one server: credentials, start and stop
    runner          which method a request calls; how its call runs and ends
    steps           what a step of a call writes, sent together
    headers         deadlines, metadata, texts
    messages        chunks of a body -> messages
    context         what a servicer learns and says about its call
"""

from __future__ import annotations

from service.listening.native.transport import NativeTransport

__all__ = ["NativeTransport"]
