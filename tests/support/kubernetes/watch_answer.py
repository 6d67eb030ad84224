"""One watch: a stream of lines, each an event."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from support.deadlines import DEADLINE_SECONDS
from support.kubernetes.cluster import GoneError, Scope
from support.kubernetes.objects import KINDS, status_object

if TYPE_CHECKING:
    from support.kubernetes.cluster import Cluster
    from support.kubernetes.faults import Fault, Faults

_LOOK_SECONDS = 0.1
"""How often a watch looks whether its client is still there."""


class WatchAnswer:
    """One watch that is under way."""

    def __init__(
        self,
        cluster: Cluster,
        faults: Faults,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        scope: Scope,
        parameters: dict[str, str],
        fault: Fault | None,
        bookmark_seconds: float,
    ) -> None:
        self._cluster = cluster
        self._faults = faults
        self._reader = reader
        self._writer = writer
        self._scope = scope
        self._revision = int(parameters["resourceVersion"])
        self._ends_at = time.monotonic() + float(parameters.get("timeoutSeconds", "1800"))
        self._bookmarks = parameters.get("allowWatchBookmarks") in {"1", "true"}
        self._bookmark_seconds = bookmark_seconds
        self._bookmark_at = time.monotonic() + bookmark_seconds
        self._fault = fault

    async def run(self) -> bool:
        """Send events until its time is over; returns whether the connection can be used again."""
        self._writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        if self._fault is not None and not await self._fail(self._fault):
            return False
        while time.monotonic() < self._ends_at and not self._reader.at_eof():
            next_change = self._cluster.next_change
            try:
                events = self._cluster.events(self._scope, self._revision)
            except GoneError:
                await self._send(_error(410, "Expired", "too old resource version"))
                break
            for revision, kind, item in events:
                fault = self._faults.next("event")
                if fault is not None and not await self._fail(
                    fault, {"type": kind, "object": item}
                ):
                    return False
                await self._send({"type": kind, "object": item})
                self._revision = revision
            await self._bookmark()
            with suppress(TimeoutError):
                await asyncio.wait_for(next_change.wait(), self._pause())
        self._writer.write(b"0\r\n\r\n")
        return True

    def _pause(self) -> float:
        now = time.monotonic()
        wake = min(self._ends_at, self._bookmark_at if self._wants_bookmarks else self._ends_at)
        return min(_LOOK_SECONDS, max(0.001, wake - now))

    @property
    def _wants_bookmarks(self) -> bool:
        return self._bookmarks and self._bookmark_seconds > 0

    async def _bookmark(self) -> None:
        if not self._wants_bookmarks or time.monotonic() < self._bookmark_at:
            return
        self._bookmark_at = time.monotonic() + self._bookmark_seconds
        self._revision = self._cluster.revision
        version, kind = KINDS[self._scope.plural]
        metadata = {"resourceVersion": str(self._revision), "creationTimestamp": None}
        item = {"kind": kind, "apiVersion": version, "metadata": metadata}
        await self._send({"type": "BOOKMARK", "object": item})

    async def _fail(self, fault: Fault, event: dict[str, Any] | None = None) -> bool:
        """Do something wrong; returns whether the watch goes on."""
        whole = json.dumps(event or {"type": "ADDED", "object": {"metadata": {}}}).encode()
        half = whole[: len(whole) // 2]
        if fault.kind in {"gone", "error"}:
            code, reason = (410, "Expired") if fault.kind == "gone" else (fault.status, "Broken")
            await self._send(_error(code, reason, "something is wrong"))
            self._writer.write(b"0\r\n\r\n")
            return False
        if fault.kind in {"cut", "end"}:
            if fault.kind == "cut":
                await self._write(half)
            self._writer.write(b"0\r\n\r\n")
            return False
        if fault.kind in {"half", "close"}:
            await self._write(half if fault.kind == "half" else b"\n")
            self._writer.transport.abort()
            return False
        if fault.kind == "quiet":
            await asyncio.sleep(DEADLINE_SECONDS)
        elif fault.kind == "garbage":
            await self._write(half + b"\n")
        elif fault.kind == "huge":
            await self._write(b'{"type":"ADDED","object":"' + b"x" * fault.size)
        elif fault.kind == "slow":
            for byte in whole + b"\n":
                await self._write(bytes([byte]))
        return True

    async def _send(self, event: dict[str, Any]) -> None:
        await self._write(json.dumps(event).encode() + b"\n")

    async def _write(self, data: bytes) -> None:
        self._writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await self._writer.drain()


def _error(code: int, reason: str, message: str) -> dict[str, Any]:
    return {"type": "ERROR", "object": status_object(code, reason, message)}
