"""gRPC over HTTP/2: which method a stream calls, and how its call runs and ends."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import structlog

from service.listening.http2.stream import PeerLeftError
from service.listening.native.context import CallContext, refuse
from service.listening.native.headers import CallHeaders, read_headers
from service.listening.native.messages import PREFIX_BYTES, MessageError, MessageReader
from service.listening.native.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from service.listening.http2.stream import Stream

_Status = grpc.StatusCode
_CALL_BYTES = 4096  # that a call takes before anything of its message has come
_log = structlog.get_logger("kvatlas.service")


class Method(NamedTuple):
    """A method, as it is called."""

    call: Callable[[Any, Any], Any]
    read: Callable[[bytes], Any] | None
    """Decodes a request; None: the method takes bytes."""
    write: Callable[[Any], bytes] | None
    reads_stream: bool
    writes_stream: bool
    is_generator: bool


def methods_of(
    services: Mapping[str, Mapping[str, grpc.RpcMethodHandler[Any, Any]]],
) -> dict[bytes, Method]:
    """Return the methods of services by their paths. Raises ValueError for one in its style."""
    methods = {}
    for service, handlers in services.items():
        for name, handler in handlers.items():
            reads, writes = handler.request_streaming, handler.response_streaming
            if reads and not writes:
                raise ValueError(f"{service}/{name}: many requests with one answer")
            call: Any = handler.unary_unary
            if writes:
                call = handler.stream_stream if reads else handler.unary_stream
            methods[f"/{service}/{name}".encode()] = Method(
                *(call, handler.request_deserializer, handler.response_serializer),
                *(reads, writes, inspect.isasyncgenfunction(call)),
            )
    return methods


class CallRunner:
    """Answers the requests of all connections of a listener.

    Args:
        methods: by path.
        request_bytes: of the largest message that is read.
        unknown: the text of the error of a call to another method.
        on_refused: is told why a call was refused.
        on_end: is told of the task that has run a call.
        refusal_of: why a call with these headers needs another token, or None.
    """

    def __init__(
        self,
        methods: Mapping[bytes, Method],
        request_bytes: int,
        unknown: str,
        on_refused: Callable[[str], None],
        on_end: Callable[[asyncio.Task[Any]], None],
        refusal_of: Callable[[str, Any], str | None] | None,
    ) -> None:
        self._methods = methods
        self._request_bytes = request_bytes
        self._unknown = unknown
        self.refused = on_refused
        self._on_end = on_end
        self._refusal_of = refusal_of

    def begin(self, stream: Stream) -> None:
        """Start the call of a stream whose headers have come, or refuse it."""
        headers: CallHeaders | None = stream.headers.meaning
        if headers is None:
            headers = stream.headers.meaning = read_headers(stream.headers)
        method = self._methods.get(headers.path)
        refusal = self._refusal(headers, method)
        if refusal is not None:
            refuse(stream, *refusal, http_status=headers.http_status)
            return
        assert method is not None  # noqa: S101
        deadline = None
        if headers.timeout is not None:
            loop = stream.connection.loop
            deadline = loop.time() + headers.timeout
            stream.timer = loop.call_at(deadline, self._too_late, stream)
        stream.call = (method, headers, deadline)
        if method.reads_stream:
            self._start(stream)
        else:
            stream.credits_at_once = True
            stream.keep(_CALL_BYTES)
            if stream.is_whole:
                self.progress(stream)

    def progress(self, stream: Stream) -> None:
        """More of a request has come: a call begins when its one message is there."""
        if stream.call is None or stream.task is not None:
            return
        prefix = stream.first(PREFIX_BYTES)
        told = int.from_bytes(prefix[1:]) if len(prefix) == PREFIX_BYTES else 0
        length = max(stream.received - PREFIX_BYTES, told)
        if length > self._request_bytes:
            text = (
                f"the message is larger than the limit ({length} vs. {self._request_bytes} bytes)"
            )
            self.refused("message_too_large")
            self._end(stream, _Status.RESOURCE_EXHAUSTED, text)
        elif stream.is_whole:
            self._start(stream)

    def give_way(self, stream: Stream) -> None:
        """End a call, as there is no room for its request and younger ones."""
        self.refused("no_room")
        text = "the requests that arrive take too much memory, and this one came first"
        self._end(stream, _Status.RESOURCE_EXHAUSTED, text)

    def _too_late(self, stream: Stream) -> None:
        self._end(stream, _Status.DEADLINE_EXCEEDED, "Deadline Exceeded")

    @staticmethod
    def _end(stream: Stream, status: _Status, text: str) -> None:
        """End a call with a status, whether its method runs or its request is not whole."""
        call, stream.call = stream.call, None
        if isinstance(call, CallContext):
            call.stop(status, text)
        elif call is not None:
            refuse(stream, status, text)

    def _refusal(self, headers: CallHeaders, method: Method | None) -> tuple[_Status, str] | None:
        if headers.fault:
            return headers.status, headers.fault
        if method is None:
            return _Status.UNIMPLEMENTED, self._unknown
        if self._refusal_of is not None:
            reason = self._refusal_of(headers.path.decode("latin-1"), headers.metadata())
            if reason is not None:
                return _Status.UNAUTHENTICATED, reason
        return None

    def _start(self, stream: Stream) -> None:
        method, headers, deadline = stream.call
        call = self._streaming if method.writes_stream else self._unary
        context = CallContext(stream, headers, deadline)
        stream.call = context
        steps = Steps(self._run(call, method, context), stream.connection.outbox)
        stream.task = context.task = stream.connection.loop.create_task(steps)

    async def _run(self, call: Any, method: Method, context: CallContext) -> None:
        """Run a call to its end, and say how it ended."""
        try:
            await self._status_of(call, method, context)
            context.finish()
        except PeerLeftError:
            pass
        finally:
            self._on_end(context.task)

    async def _status_of(self, call: Any, method: Method, context: CallContext) -> None:
        """Run a call, and tell the context its status. Raises PeerLeftError."""
        try:
            await call(method, context)
        except asyncio.CancelledError:
            if not context.was_stopped:
                context.end_with(_Status.CANCELLED, "the call was cancelled")
                context.finish()  # unless it was the caller who cancelled
                raise
            context.task.uncancel()
        except PeerLeftError:
            raise
        except MessageError as error:
            self.refused(error.reason)
            context.end_with(error.status, str(error))
        except grpc.aio.AbortError:
            pass  # the context knows
        except Exception as error:  # noqa: BLE001 - a failed call does not end the service
            _log.error("call_failed", method=context.headers.path, exc_info=error)
            context.end_with(_Status.UNKNOWN, f"unexpected {type(error).__name__}")
        finally:
            context.stream.stop_clock()
            context.stream.release_all()

    async def _unary(self, method: Method, context: CallContext) -> None:
        request = await self._only_request(method, context)
        answering = method.call(request, context)
        del request
        answer = await answering
        context.stream.stop_clock()
        if answer is not None:
            await context.answer(method.write(answer) if method.write is not None else answer)

    async def _streaming(self, method: Method, context: CallContext) -> None:
        if method.reads_stream:
            argument: Any = _Requests(method, context, self._reader(context), self.refused)
            context.requests = argument
        else:
            argument = await self._only_request(method, context)
        if not method.is_generator:
            await method.call(argument, context)
            return
        messages = method.call(argument, context)
        del argument
        try:
            async for message in messages:
                await context.write(method.write(message) if method.write is not None else message)
        finally:
            await messages.aclose()

    async def _only_request(self, method: Method, context: CallContext) -> Any:
        body = context.stream.all_at_once()
        if (
            body is None
            or len(body) - PREFIX_BYTES != int.from_bytes(body[1:PREFIX_BYTES])
            or body[0]
        ):
            message = await self._reader(context, body).only()
        else:
            message = body[PREFIX_BYTES:]
        del body
        context.stream.release_all()
        return message if method.read is None else method.read(message)

    def _reader(self, context: CallContext, start: bytes | None = None) -> MessageReader:
        stream = context.stream
        return MessageReader(
            *(stream.chunk, self._request_bytes, context.headers.encoding, start or b""),
            *(stream.keep, stream.release),
        )


class _Requests:
    """The requests of a call that sends many, one after the other."""

    def __init__(
        self,
        method: Method,
        context: CallContext,
        reader: MessageReader,
        refused: Callable[[str], None],
    ) -> None:
        self._refused = refused
        self._read = method.read
        self._context = context
        self._reader = reader

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> Any:
        """Return the next request. Raises CancelledError if the call is over."""
        try:
            message = await self._reader.next()
        except PeerLeftError:
            raise asyncio.CancelledError from None
        except MessageError as error:
            self._refused(error.reason)
            self._context.stop(error.status, str(error))
            raise asyncio.CancelledError from None
        if message is None:
            raise StopAsyncIteration
        return message if self._read is None else self._read(message)
