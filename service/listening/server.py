"""One listener: its addresses, its services, its start and its stop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from grpc_health.v1 import health_pb2_grpc

from service.accepting import ListenError, bind
from service.listening import health
from service.listening.grpcio import GrpcioTransport
from service.listening.native import NativeTransport
from service.listening.tokens import TokenCheck
from service.rpc import enable_reflection

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc

    from service.listening.transport import Handlers, ListenerSettings, Transport


class ListenerDiedError(Exception):
    """gRPC's server ended without being stopped."""


class GrpcServer:
    """Listens within an `async with` block. Services are added before.

    Args:
        settings: what it allows, and whom.
        may_move: whether to take any free port where the one in an address is in use.
    """

    def __init__(self, settings: ListenerSettings, *, may_move: bool = False) -> None:
        self._settings = settings
        self._name = settings.name
        self._may_move = may_move
        self._services: Handlers = {}
        self._health = health.HealthServicer(self._services.keys())
        self._transport: Transport | None = None
        self._stop: asyncio.Task[None] | None = None
        self.addresses: list[str] = []
        """Where it listens, with the port chosen where 0 was asked for."""

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: dict[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Serve a service, as generated code and `add_service` ask for it."""
        self._services[service_name] = method_handlers

    def add_generic_rpc_handlers(self, _handlers: object) -> None:
        """Nothing: generated code adds every service in both ways."""

    async def __aenter__(self) -> Self:
        """Listens, but is not ready yet. Raises ListenError, OSError, ValueError."""
        described = [*self._services, health.NAME]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self)  # type: ignore[arg-type]
        if self._settings.section.reflection:
            enable_reflection(self, described)
        transport = self._transport = self._make_transport()
        try:
            self.addresses += self._bound(transport)
            await transport.start()
        except (ListenError, asyncio.CancelledError):
            await self.stop()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    def become_ready(self) -> None:
        """Answer SERVING from now on."""
        self._health.set(is_serving=True)
        if self._settings.connections is not None:
            self._settings.connections.become_ready()

    def become_lame_duck(self) -> None:
        """Answer NOT_SERVING from now on, and all other calls as before."""
        self._health.set(is_serving=False)

    async def until_it_dies(self) -> None:
        """Wait for an end that `stop` did not bring about. Raises ListenerDiedError."""
        try:
            if self._transport is not None:
                await self._transport.until_it_dies()
        except Exception as error:
            raise ListenerDiedError(f"the listener of [{self._name}] died: {error!r}") from error
        if self._stop is None:
            raise ListenerDiedError(f"the listener of [{self._name}] died")

    async def stop(self) -> None:
        """End in order: not ready, no further calls, calls in progress, connections, server."""
        if self._transport is None:
            return
        if self._stop is None:
            self._stop = asyncio.create_task(self._end(self._transport), name=f"stop {self._name}")
        await self._stop

    async def _end(self, transport: Transport) -> None:
        self._health.set(is_serving=False)
        await transport.stop(self._settings.bounds.drain_seconds)
        self._transport = None

    def _make_transport(self) -> Transport:
        """Raises OSError, ValueError."""
        settings = self._settings
        file = settings.section.token_file
        tokens = None if file is None else TokenCheck(self._name, file, settings.on_refused)
        kind = GrpcioTransport if settings.bounds.transport == "grpcio" else NativeTransport
        return kind(settings, self._services, tokens)

    def _bound(self, transport: Transport) -> Iterator[str]:
        """Where it listens. Raises ListenError."""
        connections, section = self._settings.connections, self._settings.section
        if connections is not None and connections.addresses is not None:
            yield from connections.addresses
            return
        for address in section.listen:
            yield bind(self._name, address, transport.bind, may_move=self._may_move)
