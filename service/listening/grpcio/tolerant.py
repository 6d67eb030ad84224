"""A gRPC server that goes on when a call's method is no text."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from service.listening.transport import NO_METHOD

if TYPE_CHECKING:
    from collections.abc import Sequence

_OVERRIDDEN = ("_make_request_call_future", "_request_call")
_exchange = Lock()

_log = structlog.get_logger("kvatlas.service")


def tolerant_server(
    options: Sequence[tuple[str, int]], interceptors: Sequence[grpc.aio.ServerInterceptor]
) -> grpc.aio.Server:
    """A server, not started yet; its methods must be *registered*.

    grpc.aio decodes the path of every call to a method that is not registered in the task that
    accepts all calls: 30 bytes that are not UTF-8, from anybody, end that task, and the server with
    it. Here another task takes these calls, and says UNIMPLEMENTED without looking at the path.
    """
    if not all(hasattr(cygrpc.AioServer, name) for name in _OVERRIDDEN):
        _log.warning("server_not_tolerant", detail="this version of grpcio is not known")
        return grpc.aio.server(interceptors=interceptors, options=options)
    with _exchange:  # grpc.aio makes its server from this name
        original = cygrpc.AioServer
        cygrpc.AioServer = _TolerantServer
        try:
            return grpc.aio.server(interceptors=interceptors, options=options)
        finally:
            cygrpc.AioServer = original


class _TolerantServer(cygrpc.AioServer):  # type: ignore[misc]
    def _make_request_call_future(self, method_bytes: bytes | None) -> Any:
        if method_bytes is not None:
            return super()._make_request_call_future(method_bytes)
        return asyncio.get_running_loop().create_task(self._refuse_unknown_methods())

    async def _refuse_unknown_methods(self) -> None:
        """Ends when the server stops, as the request for a call fails then."""
        loop = asyncio.get_running_loop()
        while True:
            state = await self._request_call()
            context = cygrpc._ServicerContext(state, None, None, loop)  # noqa: SLF001
            with suppress(cygrpc.AbortError, cygrpc.ExecuteBatchError):
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, NO_METHOD)
