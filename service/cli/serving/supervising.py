"""Runs the service in several processes."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from kvevents import raise_descriptor_limit
from service.accepting import ListenError
from service.cli.serving.signals import StopSignals
from service.processes import PrivateStore, PrivateStoreError, StartFailedError, Supervisor
from service.terminal import complain

if TYPE_CHECKING:
    from service.config import Configuration


def supervise(configuration: Configuration) -> int:
    """Run the processes until a signal ends them. Returns the exit status."""
    raise_descriptor_limit()
    try:
        return asyncio.run(_supervise(configuration))
    except StartFailedError as failed:
        return failed.status if failed.status > 0 else 1
    except (ListenError, PrivateStoreError) as error:
        complain(f"cannot start: {error}")
        return 1


async def _supervise(configuration: Configuration) -> int:
    signals = StopSignals()
    signals.started()  # a process cannot be started by halves: asyncio might wait for it for ever
    supervisor = Supervisor(configuration, [sys.executable, *sys.orig_argv[1:]])
    async with AsyncExitStack() as stack:
        url = configuration.store.url
        if not url:
            url = (await stack.enter_async_context(PrivateStore())).url
        supervisor.bind()
        if signals.has_come:
            complain("stopped before it was serving")
            return 0
        told = asyncio.create_task(signals.wait(), name="signals")
        running = asyncio.create_task(supervisor.run(url), name="supervisor")
        stack.callback(told.cancel)
        await asyncio.wait((told, running), return_when=asyncio.FIRST_COMPLETED)
        if signals.first is not None:
            supervisor.stop(signals.first)
        return await running
