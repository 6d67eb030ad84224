"""ZMQ message parts -> a frame. No I/O here."""

from __future__ import annotations

from typing import NamedTuple


class FrameError(ValueError):
    """A message that is no frame; `reason` is one of a few words, for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Frame(NamedTuple):
    """One published message: topic, sequence number (from 0, one more a batch) and payload."""

    topic: bytes
    sequence: int
    payload: bytes


def parse_frame(parts: list[bytes]) -> Frame:
    """The frame of a message's parts: topic, sequence as 8 bytes big-endian, payload."""
    if len(parts) != 3:
        raise FrameError("frame_parts", f"a message has {len(parts)} parts instead of 3")
    topic, sequence, payload = parts
    if len(sequence) != 8:
        raise FrameError("frame_sequence", f"a sequence has {len(sequence)} bytes instead of 8")
    return Frame(topic, int.from_bytes(sequence, "big"), payload)
