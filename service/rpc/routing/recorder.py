"""One routing or one outcome, checked -> recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvatlas.v1 import routing_pb2

from service.rpc.bounds.names import check_name
from service.rpc.errors import InvalidRequestError

if TYPE_CHECKING:
    from service.config import LimitsSection, RoutingSection
    from service.routing import Routing

_LONGEST_HANDLE = 64  # bytes
_MOST_SOURCES = 16


class RoutingRecorder:
    """Records routings and outcomes. Both methods raise InvalidRequestError and RoutingError."""

    def __init__(self, routing: Routing, section: RoutingSection, limits: LimitsSection) -> None:
        self._routing = routing
        self._section = section
        self.limits = limits

    def record(
        self, request: routing_pb2.RecordRoutingRequest
    ) -> routing_pb2.RecordRoutingResponse:
        """Record where a request was sent."""
        _check_handle(request.handle)
        if not request.pod:
            raise InvalidRequestError("pod is not set")
        check_name("pod", request.pod, self.limits.name_bytes)
        seconds = request.ttl_ms / 1000 or self._section.ttl_seconds
        if seconds > self._section.max_ttl_seconds:
            raise InvalidRequestError(
                f"ttl_ms is {request.ttl_ms}, the limit is {self._section.max_ttl_seconds} s "
                "(routing.max_ttl_seconds)"
            )
        rank = request.rank if request.HasField("rank") else None
        recorded = self._routing.record(request.handle, request.pod, rank, seconds)
        return routing_pb2.RecordRoutingResponse(**recorded._asdict())

    def report(
        self, request: routing_pb2.ReportOutcomeRequest
    ) -> routing_pb2.ReportOutcomeResponse:
        """Count what an engine found in its cache."""
        _check_handle(request.handle)
        check_name("pod", request.pod, self.limits.name_bytes)
        sources = request.cached_tokens_by_source
        if len(sources) > _MOST_SOURCES:
            raise InvalidRequestError(
                f"cached_tokens_by_source has {len(sources)} entries, the limit is {_MOST_SOURCES}"
            )
        for source in sources:
            check_name("cached_tokens_by_source", source, self.limits.name_bytes)
        rank = request.rank if request.HasField("rank") else None
        outcome = self._routing.report(
            request.handle, request.pod, rank, request.cached_tokens, dict(sources)
        )
        return routing_pb2.ReportOutcomeResponse(**outcome._asdict())


def _check_handle(handle: bytes) -> None:
    if not handle:
        raise InvalidRequestError("handle is not set")
    if len(handle) > _LONGEST_HANDLE:
        raise InvalidRequestError(
            f"handle has {len(handle)} bytes, and none has more than {_LONGEST_HANDLE}"
        )
