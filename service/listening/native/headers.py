"""gRPC's headers: deadlines, metadata, and texts, as HTTP/2 carries them."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

import grpc

from service.listening.native.messages import ENCODINGS

if TYPE_CHECKING:
    from collections.abc import Iterable

    Pairs = Iterable[tuple[bytes, bytes]]
    Metadata = tuple[tuple[str, str | bytes], ...]

METADATA_BYTES = 16 * 1024
"""The largest metadata of a call, counted as HTTP/2 does: with 32 bytes for each header."""

_OVERHEAD = 32
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MAX_DIGITS = 8
_IS_GRPC = re.compile(rb"application/grpc(\+proto)?(;|$)", re.IGNORECASE)
_BINARY = b"-bin"
_OF_THE_PROTOCOL = {b"content-type", b"te", b"host", b"connection", b"content-length"}
_PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


class CallHeaders:
    """What the headers of a request mean for its call.

    Attributes:
        path: the method, as /service/method.
        timeout: seconds that the caller waits; None: for ever.
        encoding: how its messages are compressed.
        fault: why the call cannot be answered; empty if it can.
        status: what it ends with then.
        http_status: of a request that is no call.
    """

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs
        self._metadata: Metadata | None = None
        self.path = b""
        self.timeout: float | None = None
        self.encoding = b"identity"
        self.fault = ""
        self.status = grpc.StatusCode.OK
        self.http_status = 200

    def metadata(self) -> Metadata:
        """Return the caller's metadata."""
        if self._metadata is None:
            self._metadata = metadata_of(self._pairs)
        return self._metadata

    def refuse(self, status: grpc.StatusCode, fault: str, http_status: int = 200) -> None:
        """Note why the call cannot be answered."""
        self.status, self.fault, self.http_status = status, fault, http_status


def read_headers(pairs: Pairs) -> CallHeaders:
    """Return what the headers of a request mean. Faults are noted in it."""
    call, given = CallHeaders(pairs), dict(pairs)
    call.path = given.get(b":path", b"")
    call.encoding = given.get(b"grpc-encoding", call.encoding)
    timeout = given.get(b"grpc-timeout")
    if timeout is not None:
        call.timeout = timeout_of(timeout)
    if given.get(b":method") != b"POST":
        call.refuse(grpc.StatusCode.UNKNOWN, "this is a gRPC service", 405)
    elif not _IS_GRPC.match(given.get(b"content-type", b"")):
        call.refuse(grpc.StatusCode.UNKNOWN, "this is a gRPC service", 415)
    elif timeout is not None and call.timeout is None:
        call.refuse(grpc.StatusCode.INTERNAL, "grpc-timeout is no time")
    elif call.encoding not in ENCODINGS.split(b", "):
        call.refuse(grpc.StatusCode.UNIMPLEMENTED, f"messages may be {ENCODINGS.decode()}")
    elif size_of(pairs) > METADATA_BYTES:
        text = f"the metadata has more than {METADATA_BYTES} bytes"
        call.refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
    else:
        _check_binary(call, pairs)
    return call


def _check_binary(call: CallHeaders, pairs: Pairs) -> None:
    if any(name.endswith(_BINARY) for name, _ in pairs):
        try:
            call.metadata()
        except ValueError as error:
            call.refuse(grpc.StatusCode.INTERNAL, str(error))


def size_of(headers: Pairs) -> int:
    """Return the size of a call's headers, in the bytes that METADATA_BYTES limits.

    Binary values that were joined count as if each had come alone.
    """
    size = 0
    for name, value in headers:
        joined = value.count(b",") if name.endswith(_BINARY) else 0
        size += len(name) + len(value) + _OVERHEAD + joined * (len(name) + _OVERHEAD)
    return size


def timeout_of(value: bytes) -> float | None:
    """Return the seconds of a `grpc-timeout`; None if it is malformed."""
    digits, unit = value[:-1], value[-1:]
    if not digits.isdigit() or len(digits) > _MAX_DIGITS or unit not in _UNITS:
        return None
    return int(digits) * _UNITS[unit]


def metadata_of(headers: Pairs) -> Metadata:
    """Return the metadata that a caller sent. Raises ValueError if a binary value is no base64."""
    return tuple(
        (name.decode("latin-1"), _decoded(name, each))
        for name, value in headers
        if name not in _OF_THE_PROTOCOL and not name.startswith((b"grpc-", b":"))
        for each in (value.split(b",") if name.endswith(_BINARY) else (value,))
    )


def headers_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> list[tuple[bytes, bytes]]:
    """Return the headers that carry metadata to the caller."""
    return [(name.lower().encode(), _encoded(name, value)) for name, value in metadata or ()]


def message_of(text: str) -> bytes:
    """Return a `grpc-message`: UTF-8, percent-encoded where it is not printable ASCII."""
    return quote(text, safe=_PRINTABLE, errors="replace").encode()


def _decoded(name: bytes, value: bytes) -> str | bytes:
    if not name.endswith(_BINARY):
        return value.decode("latin-1")
    value = value.strip()  # proxies join binary values with a comma, and perhaps a space
    padded = value + b"=" * (-len(value) % 4)
    try:
        return base64.b64decode(padded, validate=True)
    except binascii.Error as error:
        raise ValueError(f"the metadata {name.decode('latin-1')} is not base64") from error


def _encoded(name: str, value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return base64.b64encode(raw).rstrip(b"=") if name.lower().endswith("-bin") else raw
