"""Both clients of `kvatlas_client` behind one face: the methods of each are awaited."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from kvatlas_client import AsyncClient, Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KINDS = ("sync", "async")
_THREADS = 300  # requests of a synchronous stream that tests have under way at the same time


class _Threaded:
    """A synchronous client or stream whose methods run in threads."""

    def __init__(self, inner: Any, threads: ThreadPoolExecutor) -> None:
        self._inner = inner
        self._threads = threads

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, lambda: method(*arguments, **options))

        return call


@asynccontextmanager
async def either_client(kind: str, addresses: Any, **options: Any) -> AsyncIterator[Any]:
    """A client of a kind, open; calls may take a minute unless `options` say otherwise."""
    options = {"timeout": 60.0, "options": (("grpc.use_local_subchannel_pool", 1),), **options}
    if kind == "async":
        async with AsyncClient(addresses, **options) as client:
            yield client
        return
    with ThreadPoolExecutor(_THREADS) as threads, Client(addresses, **options) as client:
        yield _Threaded(client, threads)


@asynccontextmanager
async def either_stream(client: Any, **options: Any) -> AsyncIterator[Any]:
    """A stream of a client, open."""
    if isinstance(client, _Threaded):
        with client._inner.score_stream(**options) as stream:
            try:
                yield _Threaded(stream, client._threads)
            finally:
                await asyncio.to_thread(stream.close)
        return
    async with client.score_stream(**options) as stream:
        yield stream
