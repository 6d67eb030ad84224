"""Reads the reason and the limit from the status details of a failed call.

They are a `google.rpc.Status` with a `google.rpc.ErrorInfo`. The few fields are read by hand, so
that the client needs no package of Google's common protos.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DETAILS_KEY = "grpc-status-details-bin"
"""The key of the status details in the trailing metadata."""

_TYPE = "google.rpc.ErrorInfo"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protobuf


class ErrorInfo(NamedTuple):
    """What a program can know of an error besides its code."""

    reason: str = ""
    """In one word, such as MODEL_UNKNOWN. Empty: there is none."""
    limit: str = ""
    """The setting whose limit is exceeded. Empty: none is."""


def error_info(metadata: Iterable[tuple[str, str | bytes]] | None) -> ErrorInfo:
    """Return the reason and the limit from the trailing metadata, or empty ones."""
    for key, value in metadata or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return _of_status(value)
            except (IndexError, ValueError):  # another server's, or damaged
                break
    return ErrorInfo()


def _of_status(status: bytes) -> ErrorInfo:
    for number, detail in _fields(status):
        if number == 3:  # details, each an Any
            packed = dict(_fields(detail))
            if packed.get(1, b"").decode().rpartition("/")[2] == _TYPE:
                return _of_error_info(packed.get(2, b""))
    return ErrorInfo()


def _of_error_info(info: bytes) -> ErrorInfo:
    reason, metadata = "", {}
    for number, value in _fields(info):
        if number == 1:
            reason = value.decode()
        elif number == 3:  # an entry of the map of strings
            entry = dict(_fields(value))
            metadata[entry.get(1, b"")] = entry.get(2, b"")
    return ErrorInfo(reason, metadata.get(b"limit", b"").decode())


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the bytes of each field that has a length; others are passed over.

    Raises IndexError or ValueError where the bytes are no message.
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(message, at)
        elif kind == _BYTES:
            size, at = _varint(message, at)
            if at + size > len(message):
                raise ValueError(size)
            yield tag >> 3, message[at : at + size]
            at += size
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(kind)


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the number at an offset, and the offset after it."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
