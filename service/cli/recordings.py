"""`kvatlas record` and `replay`: write arriving frames to a file, and publish them again."""

from __future__ import annotations

import gzip
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import grpc
from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc

from kvevents import (
    PlaybackError,
    RecordedFrame,
    RecordingError,
    SubscribeError,
    format_frame,
    play,
    read_recording,
)
from service.cli.client import explain
from service.cli.connection import Connection, UsageError, connect
from service.terminal import complain

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator


def record(options: argparse.Namespace) -> int:
    """`kvatlas record`: returns the exit status."""
    count = dropped = 0
    try:
        connection = connect(options)
    except UsageError as error:
        complain(str(error))
        return 2
    try:
        with ExitStack() as stack:
            output = _opened(stack, options.output)
            for frame in _arriving(stack.enter_context(connection.channel), connection, options):
                print(format_frame(frame), file=output, flush=True)
                count += 1
                dropped += frame.dropped
                if count == options.frames:
                    break
    except KeyboardInterrupt:
        pass
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED or options.seconds is None:
            return explain(error, connection.address)
    except OSError as error:
        complain(f"{options.output}: {error.strerror}")
        return 1
    lost = f", the service dropped {dropped}" if dropped else ""
    complain(f"recorded {count} frame(s){lost}")
    return 0


def _opened(stack: ExitStack, output: str) -> IO[str]:
    if output == "-":
        return sys.stdout
    path = Path(output)
    return stack.enter_context(gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w"))


def _arriving(
    channel: grpc.Channel, connection: Connection, options: argparse.Namespace
) -> Iterator[RecordedFrame]:
    request = fleet_pb2.RecordFramesRequest(endpoint=options.endpoint)
    stub: Any = fleet_pb2_grpc.FleetServiceStub(channel)
    call = stub.RecordFrames(request, timeout=options.seconds, metadata=connection.metadata)
    call.initial_metadata()  # once it has arrived, no frame is missed
    complain("recording, press Ctrl-C to stop")
    for frame in call:
        yield RecordedFrame(frame.received_at, frame.endpoint, list(frame.parts), frame.dropped)


def replay(options: argparse.Namespace) -> int:
    """`kvatlas replay`: returns the exit status."""
    frames = (
        frame for frame in read_recording(options.file) if options.endpoint in ("", frame.endpoint)
    )
    started = time.monotonic()
    try:
        count = play(
            frames,
            options.bind or options.connect,
            bind=bool(options.bind),
            speed=options.speed,
            timeout_seconds=options.timeout,
        )
    except (RecordingError, PlaybackError, SubscribeError) as error:
        complain(str(error))
        return 1
    except OSError as error:
        complain(f"{options.file}: {error.strerror or error}")
        return 1
    print(
        f"kvatlas: replayed {count} frame(s) in {time.monotonic() - started:.1f} s", file=sys.stderr
    )
    return 0
