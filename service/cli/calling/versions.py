"""`kvatlas version`: of this command, and of the service if it can be reached."""

from __future__ import annotations

import json
from importlib.metadata import version as installed
from typing import TYPE_CHECKING

from service.cli.calling.measures import MeasuresError, process_measures
from service.cli.connection import UsageError, settings
from service.terminal import complain, printable

if TYPE_CHECKING:
    from service.cli.flags.command import Options


def version(options: Options) -> int:
    """Show both versions. Returns the exit status: 0 also if there is no service."""
    try:
        found = settings(options)
    except UsageError as error:
        complain(str(error))
        return 2
    client, server, why = installed("kvatlas"), None, "it serves no metrics"
    if found.metrics:
        try:
            server = process_measures(found.metrics, options.timeout).version
        except MeasuresError as error:
            why = str(error)
    if options.json:
        print(json.dumps({"client": client, "server": server}, indent=2))
    else:
        print(f"client {client}")
        print(f"server {printable(server)}" if server else f"server unknown: {printable(why)}")
    return 0
