"""ZMQ message parts -> a frame. No I/O here."""

from __future__ import annotations

from typing import NamedTuple


class FrameError(ValueError):
    """A message that is no frame; `reason` is one of a few words, for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


_SEQUENCE_BYTES = 8
_EPOCH_BYTES = 16


class Frame(NamedTuple):
    """One published message: topic, sequence number (from 0, one more a batch) and payload.

    epoch: names the publisher's life, empty where it does not say. A heartbeat has no payload; its
    sequence is that of the newest batch.
    """

    topic: bytes
    sequence: int
    payload: bytes
    epoch: bytes = b""


def parse_frame(parts: list[bytes]) -> Frame:
    """The frame of a message's parts: topic, sequence as 8 bytes big-endian, payload.

    The sequence may have the publisher's epoch behind it, 16 bytes.
    """
    if len(parts) != 3:
        raise FrameError("frame_parts", f"a message has {len(parts)} parts instead of 3")
    topic, sequence, payload = parts
    if len(sequence) == _SEQUENCE_BYTES:
        return Frame(topic, int.from_bytes(sequence, "big"), payload)
    if len(sequence) == _SEQUENCE_BYTES + _EPOCH_BYTES:
        number = int.from_bytes(sequence[:_SEQUENCE_BYTES], "big")
        return Frame(topic, number, payload, sequence[_SEQUENCE_BYTES:])
    raise FrameError("frame_sequence", f"a sequence has {len(sequence)} bytes instead of 8 or 24")
