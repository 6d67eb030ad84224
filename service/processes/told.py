"""What a process is told by the supervisor, and how that changes its configuration."""

from __future__ import annotations

import os
import pickle
import socket
import tempfile
from typing import IO

from pydantic import BaseModel, ConfigDict

from service.accepting import Channel, HandedConnections
from service.config import Configuration


class ToldListener(BaseModel):
    """One listener, whose connections the supervisor accepts."""

    model_config = ConfigDict(frozen=True)

    descriptor: int
    """Of the channel that connections come through."""
    addresses: tuple[str, ...]
    """Where they are made."""


class SharedConfiguration:
    """The configuration as the supervisor has read it, in a file without a name.

    A process that starts later must not read it anew: files, and the environment, may have changed,
    and it contains secrets, which a command line would show.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._file = _unnamed_file()
        values = {name: getattr(configuration, name) for name in type(configuration).model_fields}
        self._file.write(pickle.dumps((values, configuration.model_fields_set)))
        self._file.flush()

    @property
    def descriptor(self) -> int:
        """What a process inherits to read it."""
        return self._file.fileno()

    def close(self) -> None:
        """Forget it."""
        self._file.close()


def _unnamed_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("kvatlas"), "wb")
    return tempfile.TemporaryFile()


class Told(BaseModel):
    """What one of several processes needs to know."""

    model_config = ConfigDict(frozen=True)

    configuration: int
    """Descriptor of the `SharedConfiguration`."""
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

    def configured(self) -> Configuration:
        """Return the configuration of this process.

        Each has a name and a port for metrics of its own. Only the first one binds sources: pods
        that connect there are heard by one process.
        """
        size = os.fstat(self.configuration).st_size
        # The position in the file is common to all processes.
        content = os.pread(self.configuration, size, 0)
        values, given = pickle.loads(content)  # noqa: S301 - the supervisor's
        configuration = Configuration.model_construct(given, **values)
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
