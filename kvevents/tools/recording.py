"""Frames to a file and back: what arrived can be looked at, and played to another service."""

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

_MOST_WAITING = 32 * 1024 * 1024  # bytes of frames for one recorder


class RecordedFrame(NamedTuple):
    """A frame as it arrived.

    received_at: seconds since 1970. parts: topic, sequence number, payload. dropped: frames before
    this one that were left out because the recorder was too slow.
    """

    received_at: float
    endpoint: str
    parts: list[bytes]
    dropped: int = 0


class RecordingError(ValueError):
    """A file that is no recording of frames, or a torn one."""


def format_frame(frame: RecordedFrame) -> str:
    """One line of a recording, without its end."""
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
    """The frames of a recording, gzipped if its name says so. Raises RecordingError, OSError.

    Lines of another kind than `frame` are passed over.
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
                raise RecordingError(f"line {number} is no frame of a recording: {error}") from None
            yield RecordedFrame(received_at, record.get("endpoint", ""), parts)


@dataclass(eq=False)
class _Recorder:
    """Somebody who wants to see frames, with those that wait for them."""

    endpoint: str
    frames: deque[RecordedFrame]
    woken: asyncio.Event
    waiting_bytes: int = 0
    dropped: int = 0


class Recorders:
    """Those who want to see frames as they arrive; each has a bounded queue of them."""

    def __init__(self) -> None:
        self._recorders: set[_Recorder] = set()

    def __bool__(self) -> bool:
        return bool(self._recorders)

    def record(self, endpoint: str, parts: list[bytes]) -> None:
        """A frame has arrived at `endpoint`."""
        now = time.time()
        size = sum(map(len, parts))
        for recorder in self._recorders:
            if recorder.endpoint not in ("", endpoint):
                continue
            if recorder.waiting_bytes + size > _MOST_WAITING:
                recorder.dropped += 1
                continue
            recorder.frames.append(RecordedFrame(now, endpoint, parts, recorder.dropped))
            recorder.dropped = 0
            recorder.waiting_bytes += size
            recorder.woken.set()

    @contextmanager
    def recording(self, endpoint: str) -> Iterator[AsyncIterator[RecordedFrame]]:
        """Within this block, the frames that arrive at `endpoint` (empty: anywhere)."""
        recorder = _Recorder(endpoint, deque(), asyncio.Event())
        self._recorders.add(recorder)
        try:
            yield _frames(recorder)
        finally:
            self._recorders.discard(recorder)


async def _frames(recorder: _Recorder) -> AsyncIterator[RecordedFrame]:
    while True:
        while recorder.frames:
            frame = recorder.frames.popleft()
            recorder.waiting_bytes -= sum(map(len, frame.parts))
            yield frame
        recorder.woken.clear()
        await recorder.woken.wait()
