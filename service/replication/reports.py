"""Once a second: renews the reports of this replica's workers, and reads those of all others.

What was read counts as far as it is what an owner writes.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kvevents import StreamReport, report_of
from store import StoreError, pack, worker_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from indexer import ReplicatedIndex, Worker
    from kvevents import Listener
    from service.replication.handover import WaitingOwners
    from store import Follower, Store, Writer

_Text = Annotated[str, Field(max_length=4096)]
_Count = Annotated[int, Field(ge=0)]
_Counts = Annotated[dict[Annotated[str, Field(max_length=256)], _Count], Field(max_length=1024)]
_Seconds = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]


class ReportExchange:
    """Exchanges what replicas report of their workers, and what they ask of the owners."""

    def __init__(
        self,
        store: Store,
        index: ReplicatedIndex,
        listener: Listener,
        writer: Writer,
        follower: Follower,
        waiting: WaitingOwners,
    ) -> None:
        self._store = store
        self._index = index
        self._router, self._is_drained = listener.router, listener.is_drained
        self._writer = writer
        self._follower = follower
        self._waiting = waiting
        self.under_delivering: set[Worker] = set()
        """Workers of other replicas whose engines reuse less than answers say."""

    async def run_once(self) -> None:
        """Renew and read reports, and find what the store has lost. Raises StoreError."""
        requests = await self._store.renew_reports(self._reports())
        for worker, stream in list(self._router.streams.items()):
            request = requests.get(worker_name(worker))
            if request is not None and self._waiting.is_note(request):
                # What came before the note was left is not kept there: it must be applied by now.
                if self._is_drained(stream.source):
                    self._waiting.read(worker, request)
                    self._writer.write_again(worker)  # with the note
            elif request == "resync":
                stream.resync()
            elif request == "under_delivers":
                stream.on_under_delivery()
            elif request == "rewrite":
                self._writer.rewrite(worker)
        while self.under_delivering:
            worker = next(iter(self.under_delivering))
            await self._store.request(worker, "under_delivers")
            self.under_delivering.discard(worker)
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


class _Report(BaseModel):
    """The fields of a `StreamReport`, with the bounds of what answers and metrics can show."""

    model_config = ConfigDict(strict=True, extra="ignore")

    last_event_age: _Seconds | None = None
    silent: _Seconds | None = None
    counts: _Counts = {}
    events: _Counts = {}
    skipped: _Counts = {}
    engine_block_size: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    orphan_blocks: _Count = 0
    replay_endpoint: _Text | None = None
    foreign_replay: _Text = ""
    live_frames: _Count = 0
    resolved: bool = False
    rivals: _Count = 0


def stream_report(values: Mapping[str, Any]) -> StreamReport:
    """Return the report that an owner has written. Raises StoreError of kind malformed."""
    try:
        return StreamReport(**_Report.model_validate(dict(values)).model_dump())
    except ValidationError as error:
        (first, *_) = error.errors(include_url=False, include_input=False)
        where = ".".join(map(str, first["loc"]))[:100]
        raise StoreError("malformed", f"a report: {where}: {first['msg']}") from error
