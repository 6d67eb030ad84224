"""What all calls have in common: latency, status of their errors, a log line for unknown ones.

Every method is wrapped when it is registered. A gRPC interceptor would do the same, but adds some
hundred microseconds to a call.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from google.protobuf.message_factory import GetMessageClass

from service.rpc.errors import KNOWN_ERRORS, status_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from google.protobuf.descriptor import ServiceDescriptor

    from service.metrics import CallMetrics

_log = structlog.get_logger("kvatlas.service")


def add_service(
    server: grpc.aio.Server, service: ServiceDescriptor, servicer: object, metrics: CallMetrics
) -> None:
    """Serve a service's methods with the servicer's methods of the same names.

    Args:
        server: the server, not started yet.
        service: the protobuf descriptor.
        servicer: has a method for each of the service's.
        metrics: observe the status and the seconds of every call.
    """
    handlers = {}
    for method in service.methods:
        implementation, observe = getattr(servicer, method.name), metrics.observer(method.name)
        parse = GetMessageClass(method.input_type).FromString
        serialize = GetMessageClass(method.output_type).SerializeToString
        if method.server_streaming:
            handlers[method.name] = grpc.unary_stream_rpc_method_handler(
                _measured_stream(implementation, observe, method.full_name), parse, serialize
            )
        else:
            handlers[method.name] = grpc.unary_unary_rpc_method_handler(
                _measured(implementation, observe, method.full_name), parse, serialize
            )
    generic = grpc.method_handlers_generic_handler(service.full_name, handlers)
    server.add_generic_rpc_handlers((generic,))


def _measured(
    method: Callable[[Any, Any], Awaitable[Any]], observe: Callable[[str, float], None], name: str
) -> Any:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        start = time.perf_counter()
        status = grpc.StatusCode.OK
        try:
            return await method(request, context)
        except asyncio.CancelledError:
            status = grpc.StatusCode.CANCELLED  # by the caller, or because its deadline is over
            raise
        except Exception as error:  # noqa: BLE001 - a failed call does not end the service
            status, detail = _fault(error, name)
            await context.abort(status, detail)
        finally:
            observe(status.name, time.perf_counter() - start)

    return call


def _measured_stream(
    method: Callable[[Any, Any], AsyncIterator[Any]],
    observe: Callable[[str, float], None],
    name: str,
) -> Any:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        start = time.perf_counter()
        status = grpc.StatusCode.OK
        try:
            async for message in method(request, context):
                yield message
        except asyncio.CancelledError:
            status = grpc.StatusCode.CANCELLED  # by the caller, or because its deadline is over
            raise
        except Exception as error:  # noqa: BLE001 - a failed call does not end the service
            status, detail = _fault(error, name)
            await context.abort(status, detail)
        finally:
            observe(status.name, time.perf_counter() - start)

    return call


def _fault(error: Exception, name: str) -> tuple[grpc.StatusCode, str]:
    """Return the status and message of a call that raised `error`; logs unknown errors."""
    if isinstance(error, KNOWN_ERRORS):
        return status_of(error), str(error)
    _log.error("call_failed", method=name, exc_info=error)
    return grpc.StatusCode.INTERNAL, "internal error; see the service's log"
