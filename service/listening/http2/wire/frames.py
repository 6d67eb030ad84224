"""HTTP/2's frames: their numbers, and how they are written."""

from __future__ import annotations

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES = 9
MAX_ID = 2**31 - 1
DEFAULT_WINDOW = 65_535
DEFAULT_FRAME = 16_384

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 3, 4, 5, 6
HEADER_TABLE_SIZE, ENABLE_PUSH = 1, 2

head = struct.Struct(">HBBBI")
"""Length (its upper 16 and lower 8 bits), type, flags, stream."""


class Fault(IntEnum):
    """Why a stream or a connection is ended."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class ConnectionFaultError(Exception):
    """The peer broke a rule such that its connection cannot go on."""

    def __init__(self, fault: Fault, text: str) -> None:
        super().__init__(text)
        self.fault = fault


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    length = len(payload)
    return head.pack(length >> 8, length & 0xFF, kind, flags, stream) + payload


def settings_frame(settings: dict[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *item) for item in settings.items()))


def window_update(stream: int, size: int) -> bytes:
    """Return a frame that allows the peer to send `size` more bytes."""
    return frame(WINDOW_UPDATE, 0, stream, size.to_bytes(4))


def reset(stream: int, fault: Fault) -> bytes:
    """Return a frame that ends a stream."""
    return frame(RST_STREAM, 0, stream, fault.to_bytes(4))


def goaway(last_stream: int, fault: Fault, text: bytes = b"") -> bytes:
    """Return a frame that says which streams are still answered, and why no further ones."""
    return frame(GOAWAY, 0, 0, last_stream.to_bytes(4) + fault.to_bytes(4) + text)


def without_padding(payload: bytes, flags: int) -> bytes:
    """Return what a DATA or HEADERS frame carries. Raises ConnectionFaultError."""
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise ConnectionFaultError(Fault.FRAME_SIZE_ERROR, "no length of the padding")
        start, end = 1, end - payload[0]
    if start > end:
        raise ConnectionFaultError(Fault.PROTOCOL_ERROR, "more padding than payload")
    return payload[start:end]
