"""Frames -> batches: short ones at once, long ones in slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvevents.wire import PayloadError, decode_batch, decode_in_slices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kvevents.skipped import Skipped
    from kvevents.source import Source
    from kvevents.stream import Unfinished
    from kvevents.transport import Frame
    from kvevents.wire import Batch, FrameLimits

_LONG_PAYLOAD = 8 * 1024  # bytes


class FrameDecoder:
    """Decodes frames, and hands them on in the order in which they come.

    Args:
        limits: how much one frame may contain.
        unfinished: where the decoding of a long frame goes on.
        skipped: counts what cannot be decoded.
        deliver: is given each frame with its batch and its connection; the batch is None if the
            payload cannot be decoded.
    """

    def __init__(
        self,
        limits: FrameLimits,
        unfinished: Unfinished,
        skipped: Skipped,
        deliver: Callable[[Source, Frame, Batch | None, int], None],
    ) -> None:
        self._limits = limits
        self._unfinished = unfinished
        self._skipped = skipped
        self._deliver = deliver

    def decode(self, source: Source, frame: Frame, connection: int) -> None:
        """Decode a frame and hand it on; if it is long, begin to."""
        if self._unfinished:
            self._unfinished.finish()
        if len(frame.payload) > _LONG_PAYLOAD:
            steps = self._decode_in_slices(source, frame, connection)
            self._unfinished.add(lambda: next(steps, False))
            return
        batch = None
        try:
            batch = decode_batch(frame.payload, self._limits)
        except PayloadError as error:
            self._skipped.add_error(error, source)
        self._deliver(source, frame, batch, connection)

    def _decode_in_slices(self, source: Source, frame: Frame, connection: int) -> Iterator[bool]:
        """Yields True while something remains."""
        batch = None
        try:
            steps = decode_in_slices(frame.payload, self._limits)
            while batch is None:
                try:
                    next(steps)
                except StopIteration as done:
                    batch = done.value
                else:
                    yield True
        except PayloadError as error:
            self._skipped.add_error(error, source)
        try:
            self._deliver(source, frame, batch, connection)
        except Exception as error:  # noqa: BLE001 - one bad frame must not stop the others
            self._skipped.add_error(error, source)
