"""RoutingService: where requests were sent, and what came of it, by calls or within a stream.

servicer  the methods of the service
recorder  one routing or outcome -> an answer
"""

from __future__ import annotations

from service.rpc.routing.recorder import RoutingRecorder
from service.rpc.routing.servicer import RoutingServicer

__all__ = ["RoutingRecorder", "RoutingServicer"]
