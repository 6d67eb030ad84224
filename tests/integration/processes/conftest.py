"""Services of several processes."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from support.processes import Processes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def service(request: pytest.FixtureRequest) -> AsyncIterator[Processes]:
    running = await asyncio.to_thread(Processes, *getattr(request, "param", ()))
    yield running
    await asyncio.to_thread(running.stop)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack
