"""A frame off the wire -> a frame as the sequencer sees it."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from kvevents.sequencing import ReceivedFrame
from kvevents.wire import DECODE_ERRORS

if TYPE_CHECKING:
    from kvevents.transport import Frame
    from kvevents.wire import Batch

_FRAME_BYTES = 300  # of a frame without its events


def fingerprint_of(payload: bytes) -> int:
    """A number that is equal for equal payloads.

    Two payloads of one sequence number differ in the engine's time at the front, or in hashes and
    rank at the end; so the middle of a long payload need not be read.
    """
    return zlib.crc32(payload[-64:], zlib.crc32(payload[:128])) | len(payload) << 32


def received_frame(frame: Frame, batch: Batch | None, fingerprint: int) -> ReceivedFrame:
    """The frame for the sequencer; `batch` is None if the payload could not be decoded."""
    size = _FRAME_BYTES + (0 if batch is None else batch.size)
    error = _decode_error(batch)
    return ReceivedFrame(frame.sequence, fingerprint, batch, size, error, frame.epoch)


def _decode_error(batch: Batch | None) -> str:
    if batch is None:
        return "undecodable_frame"
    return next((error for error in DECODE_ERRORS if error in batch.skipped), "")
