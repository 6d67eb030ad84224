"""What a process is told by the supervisor, and how that changes its configuration."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from service.accepting import Channel, HandedConnections

if TYPE_CHECKING:
    from service.config import Configuration


class ToldListener(BaseModel):
    """One listener, whose connections the supervisor accepts."""

    model_config = ConfigDict(frozen=True)

    descriptor: int
    """Of the channel that connections come through."""
    addresses: tuple[str, ...]
    """Where they are made."""


class Told(BaseModel):
    """What one of several processes needs to know."""

    model_config = ConfigDict(frozen=True)

    number: int
    """Of the process: 0 for the first one."""
    restarts: int
    """How often it has been started again."""
    replica: str
    """Its name among the replicas that share the index."""
    store_url: str
    listeners: dict[str, ToldListener]
    """grpc, and admin if there is an administration."""

    def connections(self) -> dict[str, HandedConnections]:
        """Take over the channels, once."""
        return {
            name: HandedConnections(
                Channel(socket.socket(fileno=listener.descriptor)), listener.addresses
            )
            for name, listener in self.listeners.items()
        }

    def configured(self, configuration: Configuration) -> Configuration:
        """Return the configuration of this process.

        Each has a name and a port for metrics of its own. Only the first one binds sources: pods
        that connect there are heard by one process.
        """
        number = self.number
        store = {"url": self.store_url, "replica": self.replica}
        traces = {"instance": f"{configuration.traces.instance_name}-{number}"}
        metrics = {"listen": configuration.metrics.listen_of(number)}
        return configuration.model_copy(
            update={
                "store": configuration.store.model_copy(update=store),
                "metrics": configuration.metrics.model_copy(update=metrics),
                "traces": configuration.traces.model_copy(update=traces),
                "sources": tuple(
                    source for source in configuration.sources if number == 0 or not source.bind
                ),
            }
        )
