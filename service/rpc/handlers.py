"""What all calls have in common: their bounds, counts, and the status of their errors.

Every method is wrapped when it is registered. A gRPC interceptor would do the same, but adds some
hundred microseconds to a call. The wrapper gets and returns bytes: so it can refuse a request
before it is decoded, and says itself what it means that it cannot be decoded.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Protocol

import grpc
from google.protobuf.message_factory import GetMessageClass

from service.rpc.bounds.call_admission import LARGE_BYTES
from service.rpc.bounds.refusal import Refusal
from service.rpc.exchange import CallerLeftError, MessageExchange

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
    from google.protobuf.message import Message

    from service.metrics import CallMetrics
    from service.rpc.bounds import CallBounds

    Context = grpc.aio.ServicerContext[Any, Any]

_LATE_SECONDS = 0.005


class MethodRegistry(Protocol):
    """A server, as far as services are added to it."""

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: dict[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Serve these methods of a service, by name."""


def add_service(
    server: MethodRegistry,
    service: ServiceDescriptor,
    servicer: object,
    metrics: CallMetrics,
    bounds: CallBounds,
) -> None:
    """Serve a service's methods with the servicer's methods of the same names.

    Args:
        server: the server, not started yet.
        service: the protobuf descriptor.
        servicer: has a method for each of the service's.
        metrics: count every call.
        bounds: of every call, and of all calls that have the same ones.
    """
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in service.methods:
        call = _Call(method, getattr(servicer, method.name), metrics, bounds)
        if method.client_streaming:
            handlers[method.name] = grpc.stream_stream_rpc_method_handler(call.exchange)
        elif method.server_streaming:
            handlers[method.name] = grpc.unary_stream_rpc_method_handler(call.stream)
        else:
            handlers[method.name] = grpc.unary_unary_rpc_method_handler(call.answer)
    server.add_registered_method_handlers(service.full_name, handlers)


def kind_of_method(method: MethodDescriptor) -> str:
    """Return the type of a method, as `grpc_server_...` metrics name it."""
    if method.client_streaming:
        return "bidi_stream"
    return "server_stream" if method.server_streaming else "unary"


class _Call:
    """The calls of one method."""

    def __init__(
        self,
        method: MethodDescriptor,
        implementation: Callable[[Any, Any], Any],
        metrics: CallMetrics,
        bounds: CallBounds,
    ) -> None:
        self._name = method.full_name
        self._implementation = implementation
        self._bounds = bounds
        self._request = GetMessageClass(method.input_type)
        self._may_fail_in_answer = "success" in method.output_type.fields_by_name
        self._calls = metrics.method(
            method.containing_service.full_name, method.name, kind_of_method(method)
        )

    async def answer(self, raw: bytes, context: Context) -> bytes:
        """Answer a call with one message."""
        ended = await self._ended(raw, context)
        # gRPC keeps the error that `abort` raises, and with it this frame, in a reference cycle.
        del raw
        if isinstance(ended, Refusal):
            await context.abort(ended.status, ended.text, ended.metadata)
        return ended

    async def _ended(self, raw: bytes, context: Context) -> bytes | Refusal:
        method: Callable[[Any, Any], Awaitable[Message | bytes]] = self._implementation
        admission = self._bounds.admission
        start = time.perf_counter()
        code = "OK"
        self._calls.begin(context)
        try:
            tenant = admission.tenant_of(context)
            admission.enter(len(raw), tenant)
            try:
                if len(raw) > LARGE_BYTES:
                    await self._bounds.check_large(self._request, raw, context)
                request = self._bounds.read(self._request, raw)
                answer = await method(request, context)
                if self._may_fail_in_answer and not answer.success:  # type: ignore[union-attr]
                    self._calls.failed_answers += 1
                return self._bounds.write(answer)
            finally:
                admission.leave(len(raw), tenant)
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception as error:  # noqa: BLE001 - a failed call does not end the service
            refusal = await self._refusal(error, len(raw))
            code = refusal.status.name
            return refusal
        finally:
            self._end(code, start, context)

    async def stream(self, raw: bytes, context: Context) -> AsyncIterator[bytes]:
        """Answer a call with many messages."""
        method: Callable[[Any, Any], AsyncIterator[Message]] = self._implementation
        admission = self._bounds.admission
        size, start = len(raw), time.perf_counter()
        code = "OK"
        self._calls.begin(context)
        try:
            tenant = admission.tenant_of(context)
            admission.enter(size, tenant)
            try:
                if size > LARGE_BYTES:
                    await self._bounds.check_large(self._request, raw, context)
                request = self._bounds.read(self._request, raw)
                del raw
                async for message in method(request, context):
                    yield message.SerializeToString()
            finally:
                admission.leave(size, tenant)
        except (asyncio.CancelledError, GeneratorExit):
            code = "CANCELLED"
            raise
        except Exception as error:  # noqa: BLE001 - a failed call does not end the service
            refusal = await self._refusal(error, size)
            code = refusal.status.name
            await context.abort(refusal.status, refusal.text, refusal.metadata)
        finally:
            self._end(code, start, context)

    async def exchange(self, requests: object, context: Context) -> None:
        """Exchange messages with a caller, as the implementation does with a `MessageExchange`."""
        del requests  # read through the context
        method: Callable[[MessageExchange, Context], Awaitable[None]] = self._implementation
        admission, start, code = self._bounds.admission, time.perf_counter(), "OK"
        self._calls.begin(context)
        try:
            tenant = admission.tenant_of(context)
            admission.enter(0, tenant)
            try:
                await method(MessageExchange(context, tenant, self._name), context)
            finally:
                admission.leave(0, tenant)
        except CallerLeftError:
            code = "CANCELLED"
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception as error:  # noqa: BLE001 - a failed call does not end the service
            refusal = await self._refusal(error, 0)
            code = refusal.status.name
            await context.abort(refusal.status, refusal.text, refusal.metadata)
        finally:
            self._end(code, start, context)

    async def _refusal(self, error: Exception, size: int) -> Refusal:
        if size > LARGE_BYTES:
            await self._bounds.turns.slow_down()
        return self._bounds.refuse(error, self._name)

    def _end(self, code: str, start: float, context: Context) -> None:
        seconds = time.perf_counter() - start
        remaining = context.time_remaining()
        # A caller whose deadline is over cancels its call. Here it ends later, by the time that the
        # request was under way.
        late = max(_LATE_SECONDS, seconds / 8) if code == "CANCELLED" else 0
        if remaining is not None and remaining <= late:
            code = "DEADLINE_EXCEEDED"
        elif code == "OK" and context.cancelled():
            code = "CANCELLED"
        self._calls.end(code, seconds)
