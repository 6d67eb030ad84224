"""`kvatlas serve`: runs the service until a signal ends it."""

from __future__ import annotations

import asyncio
import gc
import signal
from typing import TYPE_CHECKING

import structlog

from kvevents import SubscribeError, raise_descriptor_limit
from service.application import Application
from service.cli.serving.settings import loaded
from service.cli.serving.signals import StopSignals
from service.config import ignored_variables
from service.discovery import DiscoveryError
from service.listening import ListenerDiedError, ListenError
from service.logs import configure_logs
from service.records import SnapshotError
from service.terminal import complain
from store import StoreError
from tokenization import TokenizationError

if TYPE_CHECKING:
    from service.cli.flags.command import Options
    from service.config import Configuration

_log = structlog.get_logger("kvatlas.service")

_START_ERRORS = (
    *(DiscoveryError, ListenError, SnapshotError),
    *(StoreError, SubscribeError, TokenizationError),
)
_COLLECTIONS = (700, 10, 100)  # ten times fewer full ones: each may hold calls up for 10 ms


def serve(options: Options) -> int:
    """Run the service until a signal ends it. Returns the exit status."""
    configured = loaded(options)
    if configured is None:
        return 2
    configuration = configured.settings
    configure_logs(configuration.log)
    for ignored in ignored_variables():
        _log.warning("variable_ignored", detail=ignored)
    raise_descriptor_limit()
    try:
        asyncio.run(_serve_until_signalled(configuration))
    except _START_ERRORS as error:
        complain(f"cannot start: {error}")
        return 1
    except ListenerDiedError as error:
        complain(str(error))
        return 1
    return 0


async def _serve_until_signalled(configuration: Configuration) -> None:
    signals = StopSignals()
    try:
        async with Application(configuration) as application:
            signals.started()
            gc.freeze()  # the collector need not look through all that the start has made
            gc.set_threshold(*_COLLECTIONS)
            await _until_told(application, signals)
    except asyncio.CancelledError:
        if signals.first is None:
            raise
        complain("stopped before it was serving")


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
