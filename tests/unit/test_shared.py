"""A replica is ready once it has a copy of what others have written."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from structlog.testing import capture_logs

from service.replication.shared import SharedReplica


def replica(ready_seconds: float, warm_after: int) -> Any:
    """As much of a replica as waits: its copy never tells of progress, and is warm at that look."""
    looks = iter([False] * warm_after + [True])

    class Follower:
        @property
        def is_warm(self) -> bool:
            return next(looks)

        async def wait_for_progress(self) -> None:
            await asyncio.Event().wait()

    assigned = asyncio.Event()
    assigned.set()
    section = SimpleNamespace(ready_seconds=ready_seconds, copy_blocks=True)
    return SimpleNamespace(_section=section, _assigned=assigned, follower=Follower())


async def test_a_copy_that_makes_no_progress_for_a_second_is_waited_for() -> None:
    with capture_logs() as logs:
        await SharedReplica.wait_until_ready(replica(ready_seconds=60.0, warm_after=1))
    assert logs == []


async def test_a_copy_is_waited_for_no_longer_than_is_configured() -> None:
    with capture_logs() as logs:
        await SharedReplica.wait_until_ready(replica(ready_seconds=0.05, warm_after=1000))
    assert [line["event"] for line in logs] == ["not_warm"]
