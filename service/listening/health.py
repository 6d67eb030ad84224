"""The health service: whether the service is ready, as load balancers and kubelets ask.

The one that comes with gRPC holds a lock while it writes to a watcher: a watcher that reads nothing
would keep the service from ever becoming ready, and from stopping.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    Context = grpc.aio.ServicerContext[Any, Any]

NAME = "grpc.health.v1.Health"
_Response = health_pb2.HealthCheckResponse


class HealthServicer(health_pb2_grpc.HealthServicer):
    """All services of a listener are ready together; so is "", the listener as a whole.

    Args:
        services: their names; more may be added before the start.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._services = services
        self._is_serving = False
        self._changed = asyncio.Event()

    def set(self, *, is_serving: bool) -> None:
        """Tell all watchers, now or when they read again."""
        self._is_serving = is_serving
        self._changed.set()
        self._changed = asyncio.Event()

    @override
    async def Check(self, request: Any, context: Context) -> Any:
        """The status of a service."""
        if request.service not in ("", *self._services):
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service is served here")
        return _Response(status=self._status(request.service))

    async def List(self, _request: Any, _context: Context) -> Any:  # noqa: N802
        """The status of every service."""
        statuses = {name: _Response(status=self._status(name)) for name in ("", *self._services)}
        return health_pb2.HealthListResponse(  # type: ignore[attr-defined]
            statuses=statuses
        )

    @override
    async def Watch(self, request: Any, _context: Context) -> AsyncIterator[Any]:
        """The status of a service, now and whenever it changes."""
        told = None
        while True:
            changed, status = self._changed, self._status(request.service)
            if status != told:
                told = status
                yield _Response(status=status)
            else:
                await changed.wait()

    def _status(self, service: str) -> int:
        if service not in ("", *self._services):
            return int(_Response.SERVICE_UNKNOWN)
        return int(_Response.SERVING if self._is_serving else _Response.NOT_SERVING)
