"""`kvatlas record`: writes the frames that arrive at the service to a file."""

from __future__ import annotations

import gzip
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import grpc
from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc
from kvatlas_client.errors import of_call

from kvevents import RecordedFrame, format_frame
from service.cli.calling.calls import failed, open_client
from service.cli.connection import UsageError
from service.cli.interruption import unwinding
from service.cli.screen.progress import progress
from service.terminal import complain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvatlas_client import Client

    from service.cli.flags.command import Options


class _Count:
    """What has been recorded so far."""

    frames = 0
    dropped = 0


def record(options: Options) -> int:
    """Record until there are enough frames, the time is over, or Ctrl-C. Returns the status."""
    count = _Count()
    try:
        client = open_client(options, administration=True)
    except UsageError as error:
        complain(str(error))
        return 2
    try:
        with unwinding(), client:
            _record(client, options, count)
    except KeyboardInterrupt:
        pass
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED or options.seconds is None:
            return failed(of_call(error), client.address)
    except BrokenPipeError:
        raise
    except OSError as error:
        complain(f"{options.output}: {error.strerror}")
        return 1
    lost = f", the service dropped {count.dropped}" if count.dropped else ""
    complain(f"recorded {count.frames} frame(s){lost}")
    return 0


def _record(client: Client, options: Options, count: _Count) -> None:
    with ExitStack() as stack:
        output = _opened(stack, options.output)
        is_shown = options.output != "-" or not sys.stdout.isatty()
        arriving = _arriving(client, options)
        advance = stack.enter_context(progress("recording", options.frames, is_shown=is_shown))
        for frame in arriving:
            print(format_frame(frame), file=output, flush=True)
            advance()
            count.frames += 1
            count.dropped += frame.dropped
            if count.frames == options.frames:
                break


def _opened(stack: ExitStack, output: str) -> IO[str]:
    if output == "-":
        return sys.stdout
    path = Path(output)
    return stack.enter_context(gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w"))


def _arriving(client: Client, options: Options) -> Iterator[RecordedFrame]:
    request = fleet_pb2.RecordFramesRequest(endpoint=options.endpoint)
    stub: Any = fleet_pb2_grpc.FleetServiceStub(client.channel)
    call = stub.RecordFrames(request, timeout=options.seconds, metadata=client.settings.metadata())
    call.initial_metadata()  # once it has arrived, no frame is missed
    complain("recording, press Ctrl-C to stop")
    return (
        RecordedFrame(frame.received_at, frame.endpoint, list(frame.parts), frame.dropped)
        for frame in call
    )
