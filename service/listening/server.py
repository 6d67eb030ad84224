"""One listener: its addresses, its services, its start and its stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from grpc_health.v1 import health_pb2_grpc

from service.listening import health
from service.listening.calls import Calls
from service.listening.credentials import server_credentials
from service.listening.options import server_options
from service.listening.tokens import TokenInterceptor
from service.listening.tolerant import tolerant_server
from service.rpc import enable_reflection

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from service.config import GrpcSection, ListenerSection


class ListenError(OSError):
    """An address cannot be bound."""


class GrpcServer:
    """Listens within an `async with` block. Services are added before.

    Args:
        name: of its section, for messages.
        section: addresses and credentials.
        bounds: of connections.
        request_bytes: the largest message that is read.
        on_refused: is told why a call was refused.
    """

    def __init__(
        self,
        name: str,
        section: ListenerSection,
        bounds: GrpcSection,
        request_bytes: int,
        on_refused: Callable[[str], None],
    ) -> None:
        self._name = name
        self._section = section
        self._drain_seconds = bounds.drain_seconds
        self._calls = Calls(on_refused)
        self._services: list[str] = []
        self._health = health.HealthServicer(self._services)
        self._is_stopping = False
        self.addresses: list[str] = []
        """Where it listens, with the port chosen where 0 was asked for."""
        tokens = section.token_file
        self._server = tolerant_server(
            server_options(bounds, request_bytes, ages=section is bounds),
            [] if tokens is None else [TokenInterceptor(name, tokens, on_refused)],
        )

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: dict[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Serve a service, as generated code and `add_service` ask for it."""
        self._services.append(service_name)
        handlers = {name: self._calls.watched(each) for name, each in method_handlers.items()}
        self._server.add_registered_method_handlers(service_name, handlers)

    def add_generic_rpc_handlers(self, _handlers: object) -> None:
        """Nothing: generated code adds every service in both ways."""

    async def __aenter__(self) -> Self:
        """Listens, but is not ready yet. Raises ListenError, OSError, ValueError."""
        services = list(self._services)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self)  # type: ignore[arg-type]
        if self._section.reflection:
            enable_reflection(self, [*services, health.NAME])
        credentials = server_credentials(self._name, self._section)
        for address in self._section.listen:
            self.addresses.append(self._bind(address, credentials))
        await self._server.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    def become_ready(self) -> None:
        """Answer SERVING from now on."""
        self._health.set(is_serving=True)

    def become_lame_duck(self) -> None:
        """Answer NOT_SERVING from now on, and all other calls as before."""
        self._health.set(is_serving=False)

    async def until_stopped(self) -> None:
        """Wait for the end, which nobody but `stop` should bring about."""
        await self._server.wait_for_termination()

    async def stop(self) -> None:
        """End in order: not ready, no further calls, calls in progress, connections, server."""
        if self._is_stopping:
            await self._server.wait_for_termination()
            return
        self._is_stopping = True
        self._health.set(is_serving=False)
        await self._calls.end(self._drain_seconds, self.addresses)
        await self._server.stop(None)

    def _bind(self, address: str, credentials: grpc.ServerCredentials | None) -> str:
        try:
            if credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise ListenError(f"{self._name}.listen: cannot bind {address}") from error
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"
