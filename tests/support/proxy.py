"""A wire that can be cut: between one client and a server, over TCP."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self


class Proxy:
    """Forwards from a port of its own to `port`, within an `async with` block.

    silenced: what is sent is kept back, as by a network that has lost its way.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._heard = asyncio.Event()
        self._heard.set()
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def silence(self) -> None:
        """Nothing comes through, and nobody is told."""
        self._heard.clear()

    def heal(self) -> None:
        """Everything comes through again."""
        self._heard.set()

    def cut(self) -> None:
        """Break all connections there are."""
        for connection in self._connections:
            connection.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            there, here = await asyncio.open_connection("127.0.0.1", self._target)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(reader, here))
                group.create_task(self._forward(there, writer))
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            pass  # either end has gone: so does the other
        finally:
            self._connections.discard(task)
            writer.close()
            with suppress(UnboundLocalError):
                here.close()

    async def _forward(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            await self._heard.wait()
            target.write(data)
            await target.drain()
        raise ConnectionResetError
