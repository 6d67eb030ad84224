"""ZMQ message parts -> a frame. Pure: no I/O."""

from __future__ import annotations

from typing import NamedTuple


class FrameError(ValueError):
    """A message is not a frame; `reason` is one of a few words, for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


_LONGEST_TOPIC = 2048
_SEQUENCE_BYTES = 8
_EPOCH_BYTES = 16


class Frame(NamedTuple):
    """One published message. A heartbeat is a frame whose payload is empty or nil."""

    topic: bytes
    sequence: int
    """Counts an engine's batches from 0; a heartbeat has the number of the newest or next one."""
    payload: bytes
    epoch: bytes = b""
    """The publisher's name of its incarnation; empty if it sends none."""


def parse_frame(parts: list[bytes]) -> Frame:
    """The frame in a message of three parts: topic, sequence number and payload.

    The second part has 8 bytes, big-endian, and behind them may have the 16 bytes of the
    publisher's epoch. Raises FrameError.
    """
    if len(parts) != 3:
        raise FrameError("frame_parts", f"a message has {len(parts)} parts instead of 3")
    topic, sequence, payload = parts
    if len(topic) > _LONGEST_TOPIC:
        raise FrameError("topic_too_long", f"a topic has {len(topic):,} bytes")
    if len(sequence) == _SEQUENCE_BYTES:
        return Frame(topic, int.from_bytes(sequence, "big"), payload)
    if len(sequence) == _SEQUENCE_BYTES + _EPOCH_BYTES:
        number = int.from_bytes(sequence[:_SEQUENCE_BYTES], "big")
        return Frame(topic, number, payload, sequence[_SEQUENCE_BYTES:])
    raise FrameError("frame_sequence", f"a sequence has {len(sequence)} bytes instead of 8 or 24")
