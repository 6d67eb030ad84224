"""What every call has in common: status of its errors, latency, and a log line when it fails."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from service.errors import KNOWN_ERRORS, status_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from service.metrics import CallMetrics

_log = structlog.get_logger("kvatlas.service")
_OURS = "/kvatlas."


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the unary calls of our own services; health and reflection pass through."""

    def __init__(self, metrics: CallMetrics) -> None:
        self._metrics = metrics
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """See grpc.aio.ServerInterceptor. Each method's handler is wrapped once."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        if handler is None or not method.startswith(_OURS):
            return handler
        wrapped = self._wrapped[method] = grpc.unary_unary_rpc_method_handler(
            self._measured(method, handler.unary_unary),
            handler.request_deserializer,
            handler.response_serializer,
        )
        return wrapped

    def _measured(self, method: str, answer: Any) -> Any:
        observe = self._metrics.of(method.rpartition("/")[2])

        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            start = time.perf_counter()
            status = grpc.StatusCode.OK
            try:
                return await answer(request, context)
            except KNOWN_ERRORS as error:
                status = status_of(error)
                await context.abort(status, str(error))
            except Exception:  # noqa: BLE001 - the service goes on
                status = grpc.StatusCode.INTERNAL
                _log.exception("call_failed", method=method)
                await context.abort(status, "internal error; see the service's log")
            finally:
                observe(status.name, time.perf_counter() - start)

        return call
