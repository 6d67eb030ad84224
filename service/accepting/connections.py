"""What a listener needs of where its connections come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Hashable

    OnConnection = Callable[[Hashable, socket.socket], None]
    """Is told where a connection was made, and its socket, which does not block."""


class Connections(Protocol):
    """New connections of one listener."""

    @property
    def addresses(self) -> list[str] | None:
        """Where they are made, if that has been decided; None: `bind` decides."""

    def bind(self, address: str) -> int:
        """Listen at an address, but accept nothing yet.

        Returns:
            The port; 0 for a path. Raises OSError.
        """

    def start(self, on_connection: OnConnection, on_lost: Callable[[], None]) -> None:
        """Hand connections over from now on.

        on_lost: is told of each connection for which this process had no descriptor.
        """

    def become_ready(self) -> None:
        """Say that calls are answered from now on."""

    def closed(self) -> None:
        """Say that one of the connections is over."""

    async def stop(self) -> None:
        """Let no connection come any more; those that were made until now have been handed over."""
