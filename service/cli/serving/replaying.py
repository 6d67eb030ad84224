"""`kvatlas replay`: publishes the frames of a recording, as the engines did."""

from __future__ import annotations

import gzip
import sys
import time
from itertools import chain
from typing import TYPE_CHECKING

from kvevents import PlaybackError, RecordingError, SubscribeError, play, read_recording
from service.cli.interruption import unwinding
from service.cli.screen.progress import progress
from service.terminal import complain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kvevents import RecordedFrame
    from service.cli.flags.command import Options


def replay(options: Options) -> int:
    """Publish the frames. Returns the exit status."""
    started = time.monotonic()
    try:
        total = _lines(options.file) if sys.stderr.isatty() and options.file.is_file() else None
        with unwinding(), progress("replaying", total) as advance:
            count = play(
                _frames(options, advance),
                options.bind or options.connect,
                bind=options.bind is not None,
                speed=options.speed,
                timeout_seconds=options.timeout,
            )
    except (RecordingError, PlaybackError, SubscribeError) as error:
        complain(str(error))
        return 1
    except (OSError, EOFError) as error:
        complain(f"{options.file}: {getattr(error, 'strerror', None) or error}")
        return 1
    complain(f"replayed {count} frame(s) in {time.monotonic() - started:.1f} s")
    return 0


def _frames(options: Options, advance: Callable[[], None]) -> Iterator[RecordedFrame]:
    """The frames to publish. The first one is read at once: a broken file is found out early."""
    frames = read_recording(options.file)
    first = next(frames, None)
    every = frames if first is None else chain([first], frames)

    def chosen() -> Iterator[RecordedFrame]:
        for frame in every:
            advance()
            if options.endpoint in {"", frame.endpoint}:
                yield frame

    return chosen()


def _lines(path: Path) -> int:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return sum(1 for _ in file)
