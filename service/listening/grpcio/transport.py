"""The transport of gRPC's core, which runs in threads of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from service.listening.calls import Calls
from service.listening.grpcio.connections import Connections, refuse_connections
from service.listening.grpcio.credentials import server_credentials
from service.listening.grpcio.options import server_options
from service.listening.grpcio.tolerant import tolerant_server
from service.listening.tokens import TokenInterceptor

if TYPE_CHECKING:
    from service.listening.tokens import TokenCheck
    from service.listening.transport import Handlers, ListenerSettings

_LOOK_SECONDS = 5.0


class GrpcioTransport:
    """A server of grpc.aio."""

    def __init__(
        self, settings: ListenerSettings, services: Handlers, tokens: TokenCheck | None
    ) -> None:
        self._calls = Calls(settings.on_refused, watches_tasks=True)
        self._credentials = server_credentials(settings.name, settings.section)
        interceptors = [] if tokens is None else [TokenInterceptor(tokens)]
        options = server_options(settings)
        self._server = tolerant_server(options, interceptors)
        for service, handlers in services.items():
            watched = {method: self._calls.watched(each) for method, each in handlers.items()}
            self._server.add_registered_method_handlers(service, watched)
        self._addresses: list[str] = []
        self._is_started = False

    def bind(self, address: str) -> int:
        """Listen at an address. Raises OSError."""
        try:
            if self._credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise OSError(str(error)) from error
        path = address.startswith("unix:")
        self._addresses.append(address if path else f"{address.rpartition(':')[0]}:{port}")
        return port

    async def start(self) -> None:
        """Accept connections. gRPC can neither start half nor be left half started."""
        self._is_started = True
        starting = asyncio.create_task(self._server.start())
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            await starting
            raise

    async def until_it_dies(self) -> None:
        """Wait for an end that `stop` did not bring about."""
        # Without a timeout, to cancel this would cancel what `stop` waits for.
        while await self._server.wait_for_termination(_LOOK_SECONDS):
            pass

    async def stop(self, seconds: float) -> None:
        """End in order: no further calls, calls in progress, connections, server."""
        if not self._is_started:
            return
        refuse_connections(self._addresses)
        await self._calls.end(seconds, Connections(self._addresses))
        rest = Connections(self._addresses)  # also those that have been opened since
        for client in rest.clients:
            rest.close(client)
        await self._server.stop(None)
        del self._server  # what it still has to do as it is deleted needs a running loop
