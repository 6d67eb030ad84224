"""The start of the metrics server, when a signal cancels it."""

from __future__ import annotations

import asyncio
import threading

import pytest
from prometheus_client import CollectorRegistry
from support.deadlines import DEADLINE_SECONDS

from service.metrics import MetricsServer


async def test_a_start_that_is_cancelled_leaves_no_thread() -> None:
    server = MetricsServer(CollectorRegistry(), "127.0.0.1:0")
    starting = asyncio.create_task(server.__aenter__())
    await asyncio.sleep(0)  # it waits for its thread
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(starting, DEADLINE_SECONDS)
    assert "metrics" not in {thread.name for thread in threading.enumerate()}
