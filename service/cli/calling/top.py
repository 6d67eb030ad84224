"""`kvatlas top`: a live picture of the fleet."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from kvatlas_client import KvatlasError

from service.cli.calling.calls import failed, open_client
from service.cli.calling.measures import Measures, MeasuresError, read_measures
from service.cli.connection import UsageError, settings
from service.cli.interruption import unwinding
from service.cli.screen.tables import show
from service.cli.screen.top import Sample, TopPicture
from service.terminal import complain

if TYPE_CHECKING:
    from service.cli.calling.calls import CommandClient
    from service.cli.flags.command import Options


def top(options: Options) -> int:
    """Show the fleet until Ctrl-C, or once. Returns the exit status."""
    try:
        client = open_client(options, administration=True)
        metrics = settings(options, administration=True).metrics
    except UsageError as error:
        complain(str(error))
        return 2
    source = _Samples(client, metrics, options)
    try:
        with client:
            if options.once or not sys.stdout.isatty():
                return _print_once(source, options)
            return _show_live(source, options)
    except KvatlasError as error:
        return failed(error, client.address)


class _Samples:
    """Asks the service how it is."""

    def __init__(self, client: CommandClient, metrics: str, options: Options) -> None:
        self._client = client
        self._metrics = metrics
        self._options = options

    def take(self) -> Sample:
        """How it is now. Raises KvatlasError."""
        answer = self._client.list_pods(self._options.model)
        return Sample(self._client.address, time.monotonic(), answer, *self._measures())

    def _measures(self) -> tuple[Measures | None, str]:
        if not self._metrics:
            return None, "the service serves no metrics"
        try:
            return read_measures(self._metrics, self._options.timeout), ""
        except MeasuresError as error:
            return None, str(error)


def _print_once(source: _Samples, options: Options) -> int:
    """One picture, of what has happened in one interval."""
    picture = TopPicture(options.rows)
    picture.add(source.take())
    time.sleep(options.interval)
    picture.add(source.take())
    show(*picture.parts())
    return 0


def _show_live(source: _Samples, options: Options) -> int:
    from rich.console import Console  # only where there is a terminal
    from rich.live import Live

    picture = TopPicture(options.rows)
    picture.add(source.take())  # a service that cannot be reached at all is an error
    console = Console(markup=False, highlight=False, emoji=False)
    try:
        with unwinding(), Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(picture.rendered(console.width, console.height), refresh=True)
                time.sleep(options.interval)
                try:
                    picture.add(source.take())
                except KvatlasError as error:
                    picture.failed(f"{error.code.name}: {error.message}")
    except KeyboardInterrupt:
        return 0
