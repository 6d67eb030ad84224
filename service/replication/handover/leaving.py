"""A replica that leaves hands its workers over while it still answers calls."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from store import StoreError

if TYPE_CHECKING:
    from kvevents import FrameRouter
    from service.loops import Loops
    from service.replication.handover.assignment import SourceAssignment
    from service.replication.membership import Membership
    from service.replication.reports import ReportExchange
    from service.replication.store_failures import StoreFailures

_LONGEST_SECONDS = 5.0
_STEP_SECONDS = 0.1
_LOOP = "hand over"


class Leaving:
    """Tells the others, and releases each worker once its next owner keeps its frames.

    It does what the loops `assign` and `report` do, but more often, and stops these.
    """

    def __init__(
        self,
        loops: Loops,
        router: FrameRouter,
        membership: Membership,
        reports: ReportExchange,
        assignment: SourceAssignment,
        failures: StoreFailures,
    ) -> None:
        self._loops = loops
        self._router = router
        self._membership = membership
        self._reports = reports
        self._assignment = assignment
        self._failures = failures
        self._has_begun = False
        self._knows_who_is_live = False
        self._is_done = asyncio.Event()

    async def begin(self) -> None:
        """Begin to hand workers over; once."""
        if not self._has_begun:
            self._has_begun = True
            await self._loops.stop("assign", "report")
            self._assignment.begin_leaving()
            self._loops.start(_LOOP, self._run)

    async def finish(self) -> None:
        """Wait until every worker is handed over, but not for ever."""
        await self.begin()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_done.wait(), _LONGEST_SECONDS)
        await self._loops.stop(_LOOP)

    async def _run(self) -> None:
        while True:
            try:
                await self._membership.announce_leaving()
                if not self._knows_who_is_live:  # others may have joined since the last heartbeat
                    await self._membership.send_heartbeat()
                    self._knows_who_is_live = True
                await self._reports.run_once()
                await self._assignment.assign_sources()
            except StoreError as error:
                self._failures.record(error)
            if not self._router.streams:
                self._is_done.set()
            await asyncio.sleep(_STEP_SECONDS)
