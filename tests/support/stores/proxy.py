"""A TCP proxy between a client and a server that can lose or break connections."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self


class CuttableProxy:
    """Forwards from a port of its own to `port`, within an `async with` block."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._forwards = asyncio.Event()
        self._forwards.set()
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
        """Hold all bytes back; connections stay up."""
        self._forwards.clear()

    def heal(self) -> None:
        """Forward all bytes again, those held back first."""
        self._forwards.set()

    def cut(self) -> None:
        """Break all connections."""
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
            await self._forwards.wait()
            target.write(data)
            await target.drain()
        raise ConnectionResetError
