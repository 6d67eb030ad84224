"""The replicas that are about to release their workers, or have just left."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from store.store import Store

_KEY = "leaving"


class LeavingReplicas:
    """What replicas say of themselves before they leave. Methods raise StoreError."""

    def __init__(self, store: Store) -> None:
        self._server = store.server
        self._key = store.layout.prefix(0) + _KEY

    async def add(self, replica: str) -> None:
        """Say that a replica is about to release its workers."""
        await self._server.execute("HSET", self._key, replica, b"1")

    async def read(self) -> frozenset[str]:
        """Return the identities of the replicas that are leaving, or have just left."""
        names = await self._server.execute("HKEYS", self._key)
        return frozenset(name.decode(errors="replace") for name in names)

    async def remove(self, replicas: Collection[str]) -> None:
        """Forget replicas that have left."""
        await self._server.execute("HDEL", self._key, *replicas)
