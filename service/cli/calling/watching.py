"""`kvatlas pods --watch`: every change of a pod."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import grpc
from kvatlas.v1 import fleet_pb2
from kvatlas_client import KvatlasError

from service.cli.calling.calls import as_json, failed, open_client
from service.cli.connection import UsageError
from service.cli.interruption import unwinding
from service.terminal import complain

if TYPE_CHECKING:
    from kvatlas_client import Client

    from service.cli.flags.command import Options


def watch(options: Options) -> int:
    """Print the state of each rank, then each change, until Ctrl-C. Returns the exit status."""
    try:
        client = open_client(options, administration=True)
    except UsageError as error:
        complain(str(error))
        return 2
    try:
        with unwinding(), client:
            # The call itself has no deadline: it goes on for as long as somebody watches.
            grpc.channel_ready_future(client.channel).result(timeout=options.timeout)
            _print_changes(client, options)
    except KeyboardInterrupt:
        return 0
    except grpc.FutureTimeoutError:
        complain(f"no answer from {client.address}; is `kvatlas serve` running?")
        return 1
    except KvatlasError as error:
        return failed(error, client.address)
    return 0


def _print_changes(client: Client, options: Options) -> None:
    for change in client.watch_pods(options.model):
        if options.json:
            print(as_json(change, indent=None), flush=True)
        elif change.change == fleet_pb2.POD_CHANGE_LIST_COMPLETE:
            complain("these are all; changes follow, press Ctrl-C to stop")
        else:
            from service.cli.screen.answers import change as shown  # not needed for JSON

            at = datetime.fromtimestamp(change.changed_at).astimezone()
            print(f"{at:%H:%M:%S}  {shown(change)}", flush=True)
