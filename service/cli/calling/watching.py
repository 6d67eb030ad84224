"""`kvatlas pods --watch`: every change of a pod."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import grpc
from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc

from service.cli.calling.calls import as_json, failed
from service.cli.connection import Connection, UsageError, connect
from service.terminal import complain

if TYPE_CHECKING:
    from service.cli.flags.command import Options


def watch(options: Options) -> int:
    """Print the state of each rank, then each change, until Ctrl-C. Returns the exit status."""
    try:
        connection = connect(options, administration=True)
    except UsageError as error:
        complain(str(error))
        return 2
    try:
        with connection.channel as channel:
            # The call itself has no deadline: it goes on for as long as somebody watches.
            grpc.channel_ready_future(channel).result(timeout=options.timeout)
            _print_changes(connection, options)
    except KeyboardInterrupt:
        return 0
    except grpc.FutureTimeoutError:
        complain(f"no answer from {connection.address}; is `kvatlas serve` running?")
        return 1
    except grpc.RpcError as error:
        return failed(error, connection.address)
    return 0


def _print_changes(connection: Connection, options: Options) -> None:
    stub: Any = fleet_pb2_grpc.FleetServiceStub(connection.channel)
    request = fleet_pb2.WatchPodsRequest(model=options.model)
    for change in stub.WatchPods(request, metadata=connection.metadata):
        if options.json:
            print(as_json(change, indent=None), flush=True)
        elif change.change == fleet_pb2.POD_CHANGE_LIST_COMPLETE:
            complain("these are all; changes follow, press Ctrl-C to stop")
        else:
            from service.cli.screen.answers import change as shown  # not needed for JSON

            at = datetime.fromtimestamp(change.changed_at).astimezone()
            print(f"{at:%H:%M:%S}  {shown(change)}", flush=True)
