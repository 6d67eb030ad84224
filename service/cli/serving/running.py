"""Runs the service until a signal ends it: alone, or as one of several processes."""

from __future__ import annotations

import asyncio
import gc
import signal
from typing import TYPE_CHECKING

import structlog

from kvevents import SubscribeError, raise_descriptor_limit
from service.application import Application
from service.cli.serving.signals import StopSignals
from service.discovery import DiscoveryError
from service.listening import ListenerDiedError, ListenError
from service.logs import configure_logs
from service.processes import Told
from service.records import SnapshotError
from service.terminal import complain
from store import StoreError
from tokenization import TokenizationError

if TYPE_CHECKING:
    from service.config import Configuration

_START_ERRORS = (
    *(DiscoveryError, ListenError, SnapshotError),
    *(StoreError, SubscribeError, TokenizationError),
)
_log = structlog.get_logger("kvatlas.service")

_COLLECTIONS = (700, 10, 100)  # ten times fewer full ones: each may hold calls up for 10 ms


def run(configuration: Configuration) -> int:
    """Run the service alone. Returns the exit status."""
    return _run(configuration, None)


def run_process(told: str) -> int:
    """Run one of several processes. Returns the exit status.

    told: by the supervisor.
    """
    process = Told.model_validate_json(told)
    configuration = process.configured()
    configure_logs(configuration.log, process=process.number)
    return _run(configuration, process)


def _run(configuration: Configuration, process: Told | None) -> int:
    raise_descriptor_limit()
    try:
        asyncio.run(_serve_until_signalled(configuration, process))
    except _START_ERRORS as error:
        complain(f"cannot start: {error}")
        return 1
    except ListenerDiedError as error:
        complain(str(error))
        return 1
    return 0


async def _serve_until_signalled(configuration: Configuration, told: Told | None) -> None:
    signals = StopSignals(second_ends=told is None)
    made = Application(configuration, told)
    orphaned = asyncio.create_task(_end_with_supervisor(made, signals), name="supervisor")
    try:
        async with made as application:
            signals.started()
            gc.freeze()  # the collector need not look through all that the start has made
            gc.set_threshold(*_COLLECTIONS)
            await _until_told(application, signals)
    except asyncio.CancelledError:
        if signals.first is None:
            raise
        complain("stopped before it was serving")
    finally:
        orphaned.cancel()


async def _end_with_supervisor(application: Application, signals: StopSignals) -> None:
    """Stop when no connection can come any more; nobody else would end this process."""
    await application.until_supervisor_is_lost()
    _log.error("supervisor_lost", detail="this process ends: nobody hands it connections")
    signals.stop()


async def _until_told(application: Application, signals: StopSignals) -> None:
    death = asyncio.create_task(application.until_a_listener_dies(), name="listeners")
    told = asyncio.create_task(signals.wait(), name="signals")
    try:
        await asyncio.wait((death, told), return_when=asyncio.FIRST_COMPLETED)
        if death.done():
            await death
        if signals.first == signal.SIGTERM:  # at a terminal nobody waits for load balancers
            await application.become_lame_duck()
    finally:
        death.cancel()
        told.cancel()
