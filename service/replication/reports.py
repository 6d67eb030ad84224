"""Once a second: renews the reports of this replica's workers, and reads those of all others."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from kvevents import report_of
from store import pack, worker_name

if TYPE_CHECKING:
    from indexer import ReplicatedIndex, Worker
    from kvevents import FrameRouter
    from store import Follower, Store, Writer


class ReportExchange:
    """Exchanges what replicas report of their workers, and what they ask of the owners."""

    def __init__(
        self,
        store: Store,
        index: ReplicatedIndex,
        router: FrameRouter,
        writer: Writer,
        follower: Follower,
    ) -> None:
        self._store = store
        self._index = index
        self._router = router
        self._writer = writer
        self._follower = follower

    async def run_once(self) -> None:
        """Renew and read reports, and find what the store has lost. Raises StoreError."""
        requests = await self._store.renew_reports(self._reports())
        for worker, stream in list(self._router.streams.items()):
            request = requests.get(worker_name(worker))
            if request == "resync":
                stream.resync()
            elif request == "rewrite":
                self._writer.rewrite(worker)
        await self._follower.refresh()
        await self._writer.verify()
        self._writer.wake()

    def _reports(self) -> dict[Worker, tuple[int, bytes]]:
        """Return the report of every owned worker, with the epoch of its ownership."""
        now = time.monotonic()
        reports = {}
        for blocks in self._index.workers():
            owned = self._writer.owned.get(blocks.worker)
            stream = self._router.streams.get(blocks.worker)
            if owned is not None and stream is not None:
                report = {**asdict(report_of(stream, now)), "blocks": blocks.by_tier}
                reports[blocks.worker] = (owned.epoch, pack(report))
        return reports
