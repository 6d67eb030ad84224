"""What a listener needs of a transport, of which there are two: see `grpc.transport`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from service.accepting import Connections
    from service.config import GrpcSection, ListenerSection

    Handlers = dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]]

NO_METHOD = "there is no such method at this address; FleetService is at admin.listen"
"""What a caller of an unknown method is told."""


class ListenerSettings(NamedTuple):
    """What a listener allows, and whom."""

    name: str
    """Of its section, for messages."""
    section: ListenerSection
    """Addresses and credentials."""
    bounds: GrpcSection
    """Of connections."""
    request_bytes: int
    """Of the largest message that is read."""
    arriving_bytes: int
    """Of all requests that have not arrived as a whole; grpcio knows no such bound."""
    on_refused: Callable[[str], None]
    """Is told why a call was refused."""
    on_closed: Callable[[str], None]
    """Is told why a connection was not accepted or kept; grpcio does not say."""
    connections: Connections | None = None
    """Where they come from, if not from addresses that this process binds; not for grpcio."""

    @property
    def ages(self) -> bool:
        """Whether clients are told to reconnect from time to time.

        Those behind one address spread over new replicas then. It would end a long stream of an
        operator.
        """
        return self.section is self.bounds


class Transport(Protocol):
    """Serves methods at addresses.

    Its constructor takes the settings, the services, and what decides who may call (None:
    everybody). It raises OSError or ValueError for unusable credentials.
    """

    def bind(self, address: str) -> int:
        """Listen at host:port or unix:path.

        Returns:
            The port; any number for a path.

        Raises:
            OSError: the address cannot be bound.
        """

    async def start(self) -> None:
        """Accept connections."""

    async def until_it_dies(self) -> None:
        """Wait for an end that `stop` did not bring about."""

    async def stop(self, seconds: float) -> None:
        """Refuse connections and further calls, end streams, let other calls end, then close.

        Args:
            seconds: how long calls in progress may take; none ends as CANCELLED.
        """
