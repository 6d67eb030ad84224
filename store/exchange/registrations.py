"""The pods that were registered at any replica, for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from store.store import Store

_KEY = "registered"


class Registrations:
    """The registered pods of a store. Methods raise StoreError."""

    def __init__(self, store: Store) -> None:
        self._server = store.server
        self._key = store.layout.prefix(0) + _KEY

    async def put(self, pod: str, entry: bytes) -> None:
        """Register a pod, in place of what was registered under its name."""
        await self._server.execute("HSET", self._key, pod, entry)

    async def remove(self, pod: str) -> bool:
        """Unregister a pod; returns whether it was registered."""
        return bool(await self._server.execute("HDEL", self._key, pod))

    async def count(self) -> int:
        """How many pods are registered."""
        return int(await self._server.execute("HLEN", self._key))

    async def read(self) -> dict[str, bytes]:
        """All registered pods."""
        found = await self._server.execute("HGETALL", self._key)
        pairs = (
            found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
        )
        return {bytes(pod).decode(errors="replace"): bytes(entry) for pod, entry in pairs}
