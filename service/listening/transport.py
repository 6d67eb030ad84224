"""What a listener needs of a transport, of which there are two: see `grpc.transport`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import grpc

    Handlers = dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]]

NO_METHOD = "there is no such method at this address; FleetService is at admin.listen"
"""What a caller of an unknown method is told."""


class Transport(Protocol):
    """Serves methods at addresses."""

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
