"""The calls in progress at a listener, and how they end when it stops.

Nothing ends as CANCELLED, which clients do not try again: a call that comes too late, a stream, and
a call that takes longer than the drain all end as UNAVAILABLE.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import grpc

from service.listening.grpcio.connections import client_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from service.listening.grpcio.connections import Connections

    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]

_STOPPING = "the service is stopping"
_END_SECONDS = 1.0  # for calls to end that were told to


class NoConnections:
    """In the place of `Connections`, where the transport closes its connections itself."""

    clients: tuple[str, ...] = ()

    def close(self, client: str) -> None:
        """Leave a connection alone."""

    def release(self) -> None:
        """There is nothing to let go."""


class Calls:
    """Knows every call, from its message to its answer."""

    def __init__(self, on_refused: Callable[[str], None], *, watches_tasks: bool) -> None:
        """Make an empty set of calls.

        Args:
            on_refused: is told why a call was refused.
            watches_tasks: whether it notices by itself when the task of a call is done, which
                takes a round of the event loop; else the transport tells `ended`.
        """
        self._on_refused = on_refused
        self._watches_tasks = watches_tasks
        self._running: dict[asyncio.Task[Any], Context] = {}
        self._streams: set[asyncio.Task[Any]] = set()
        self._ended_by_us: set[asyncio.Task[Any]] = set()
        self._clients: dict[asyncio.Task[Any], str] = {}
        self._connections: Connections | NoConnections | None = None
        self._changed = asyncio.Event()

    def watched(self, handler: Handler) -> Handler:
        """The handler of a method, such that its calls are known here."""
        read, write = handler.request_deserializer, handler.response_serializer
        if handler.request_streaming:
            method = handler.stream_stream
            return grpc.stream_stream_rpc_method_handler(self._stream(method), read, write)
        if handler.response_streaming:
            method = handler.unary_stream
            return grpc.unary_stream_rpc_method_handler(self._stream(method), read, write)
        return grpc.unary_unary_rpc_method_handler(self._unary(handler.unary_unary), read, write)

    async def end(self, seconds: float, connections: Connections | NoConnections) -> None:
        """Refuse further calls, let calls in progress end, and close their connections.

        Args:
            seconds: how long calls in progress may take; streams end at once.
            connections: those of the callers.
        """
        self._clients = {task: client_of(call.peer()) for task, call in self._running.items()}
        self._connections = connections
        for task in list(self._streams):
            self._end(task)
        self._close_idle()
        await self._until_none(seconds)
        for task in list(self._running):
            self._end(task)
        await self._until_none(_END_SECONDS)
        self._connections.release()

    def ended(self, task: asyncio.Task[Any]) -> None:
        """The task of a call is done, or has only to return."""
        self._running.pop(task, None)
        self._streams.discard(task)
        self._ended_by_us.discard(task)
        if self._connections is not None:
            client = self._clients.pop(task, None)
            if client is not None and client not in self._clients.values():
                self._connections.close(client)
            self._changed.set()

    def _unary(self, method: Any) -> Any:
        async def call(request: Any, context: Context) -> Any:
            task = await self._begin(context)
            answering = method(request, context)
            # A refusal keeps this frame in a reference cycle, which should not hold a request.
            del request
            try:
                return await answering
            except asyncio.CancelledError:
                await self._explain_end(task, context)
                raise

        return call

    def _stream(self, method: Any) -> Any:
        async def messages(request: Any, context: Context) -> AsyncIterator[Any]:
            task = await self._begin(context)
            self._streams.add(task)
            try:
                async for message in method(request, context):
                    yield message
            except asyncio.CancelledError:
                await self._explain_end(task, context)
                raise

        async def writes(request: Any, context: Context) -> None:
            task = await self._begin(context)
            self._streams.add(task)
            try:
                await method(request, context)
            except asyncio.CancelledError:
                await self._explain_end(task, context)
                raise

        return messages if inspect.isasyncgenfunction(method) else writes

    async def _begin(self, context: Context) -> asyncio.Task[Any]:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - grpc.aio runs each call in a task
        self._running[task] = context
        # The task ends when the answer is written: until then its connection is needed.
        if self._watches_tasks:
            task.add_done_callback(self.ended)
        if self._connections is not None:
            self._clients[task] = client_of(context.peer())
            self._on_refused("stopping")
            await context.abort(grpc.StatusCode.UNAVAILABLE, _STOPPING)
        return task

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._ended_by_us.add(task)
        task.cancel()

    async def _explain_end(self, task: asyncio.Task[Any], context: Context) -> None:
        """Tell the caller, unless it was the caller who cancelled."""
        if task in self._ended_by_us:
            task.uncancel()
            await context.abort(grpc.StatusCode.UNAVAILABLE, _STOPPING)

    def _close_idle(self) -> None:
        assert self._connections is not None  # noqa: S101
        busy = set(self._clients.values())
        for client in self._connections.clients:
            if client not in busy:
                self._connections.close(client)

    async def _until_none(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while self._running:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
