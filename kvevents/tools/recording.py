"""Frames to a file and back, to look at them or to play them to another service."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

_MAX_RECORDERS = 4
_MAX_WAITING = 32 * 1024 * 1024  # bytes of frames for one recorder
_FRAME_OVERHEAD = 512  # bytes that a frame takes besides its parts


class RecordedFrame(NamedTuple):
    """A frame as it arrived."""

    received_at: float
    """Seconds since 1970."""
    endpoint: str
    """The configured endpoint of its source."""
    parts: list[bytes]
    """Topic, sequence number and payload."""
    dropped: int = 0
    """Frames before this one that are missing because the recorder was too slow."""


class RecordingError(ValueError):
    """A file is no recording of frames, or is cut off."""


def format_frame(frame: RecordedFrame) -> str:
    """The frame as a line of a recording, without the line's end."""
    fields = {
        "kind": "frame",
        "at": round(frame.received_at, 6),
        "endpoint": frame.endpoint,
        "frames": [part.hex() for part in frame.parts],
    }
    if frame.dropped:
        fields["dropped"] = frame.dropped
    return json.dumps(fields)


def read_recording(path: Path) -> Iterator[RecordedFrame]:
    """The frames of a recording; a file whose name ends in .gz is decompressed.

    Lines of another kind than `frame` are skipped. Raises RecordingError, OSError.
    """
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                if record["kind"] != "frame":
                    continue
                parts = [bytes.fromhex(part) for part in record["frames"]]
                received_at = float(record.get("at", 0.0))
            except (ValueError, KeyError, TypeError) as error:
                raise RecordingError(f"line {number} is not a recorded frame: {error}") from None
            yield RecordedFrame(received_at, record.get("endpoint", ""), parts)


class TooManyRecordersError(Exception):
    """As many record already as are allowed."""


@dataclass(eq=False)
class _Recorder:
    """One who records frames, with the frames that wait for it."""

    endpoint: str
    frames: deque[RecordedFrame]
    woken: asyncio.Event
    waiting_bytes: int = 0
    dropped: int = 0


class Recorders:
    """Gives frames, as they arrive, to everyone who records them, each through a bounded queue.

    Attributes:
        dropped: frames that some recorder was too slow for, since the start.
        refused: recordings that were not begun, because there were too many.
    """

    def __init__(self) -> None:
        self._recorders: set[_Recorder] = set()
        self.dropped = 0
        self.refused = 0

    def __len__(self) -> int:
        return len(self._recorders)

    def __bool__(self) -> bool:
        return bool(self._recorders)

    def record(self, endpoint: str, parts: list[bytes]) -> None:
        """Queue a frame that has arrived at `endpoint`."""
        now = time.time()
        size = _size(parts)
        for recorder in self._recorders:
            if recorder.endpoint not in ("", endpoint):
                continue
            if recorder.waiting_bytes + size > _MAX_WAITING:
                recorder.dropped += 1
                self.dropped += 1
                continue
            recorder.frames.append(RecordedFrame(now, endpoint, parts, recorder.dropped))
            recorder.dropped = 0
            recorder.waiting_bytes += size
            recorder.woken.set()

    @contextmanager
    def recording(self, endpoint: str) -> Iterator[AsyncIterator[RecordedFrame]]:
        """Yield the frames that arrive at `endpoint` (empty: at any) within this block.

        Raises TooManyRecordersError.
        """
        if len(self._recorders) >= _MAX_RECORDERS:
            self.refused += 1
            raise TooManyRecordersError(f"{_MAX_RECORDERS} recordings are under way already")
        recorder = _Recorder(endpoint, deque(), asyncio.Event())
        self._recorders.add(recorder)
        try:
            yield _frames(recorder)
        finally:
            self._recorders.discard(recorder)


def _size(parts: list[bytes]) -> int:
    """Bytes that a frame takes while it waits."""
    return _FRAME_OVERHEAD + sum(map(len, parts))


async def _frames(recorder: _Recorder) -> AsyncIterator[RecordedFrame]:
    while True:
        while recorder.frames:
            frame = recorder.frames.popleft()
            recorder.waiting_bytes -= _size(frame.parts)
            yield frame
        recorder.woken.clear()
        await recorder.woken.wait()
