"""What makes the headers of a request malformed, as RFC 9113 says in section 8."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    Pairs = Iterable[tuple[bytes, bytes]]

_OF_REQUESTS = frozenset((b":method", b":scheme", b":path", b":authority"))
_NEEDED = frozenset((b":method", b":scheme", b":path"))
_OF_TUNNELS = frozenset((b":method", b":authority"))
_OF_HTTP_1 = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
_NAME_OCTETS = bytes(set(range(0x21, 0x7F)) - set(b":ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
_NO_VALUE_OCTETS = b"\0\r\n"
_MOST_DIGITS = 18


def fault_of_request(headers: Pairs) -> str:
    """Return why the headers of a request are malformed; empty if they are not."""
    pseudo: dict[bytes, bytes] = {}
    is_regular = False
    for name, value in headers:
        if name[:1] != b":":
            is_regular = True
            fault = _fault_of(name, value)
        elif is_regular:
            return "a pseudo-header after other headers"
        elif name not in _OF_REQUESTS or name in pseudo:
            return "a pseudo-header that is unknown or comes twice"
        else:
            pseudo[name] = value
            fault = _fault_of_value(value)
        if fault:
            return fault
    if pseudo.get(b":method") == b"CONNECT":
        return "" if pseudo.keys() == _OF_TUNNELS else "not the pseudo-headers of CONNECT"
    if not pseudo.keys() >= _NEEDED or not pseudo[b":path"]:
        return "a pseudo-header is missing"
    return ""


def fault_of_trailers(headers: Pairs) -> str:
    """Return why trailers are malformed; empty if they are not."""
    for name, value in headers:
        fault = "a pseudo-header in trailers" if name[:1] == b":" else _fault_of(name, value)
        if fault:
            return fault
    return ""


def body_bytes(headers: Pairs) -> int | None:
    """Return the size of the body that the headers promise: None without, -1 if malformed."""
    promised = [value for name, value in headers if name == b"content-length"]
    if not promised:
        return None
    value = promised[0]
    if len(promised) > 1 or not value.isdigit() or len(value) > _MOST_DIGITS:
        return -1
    return int(value)


def _fault_of(name: bytes, value: bytes) -> str:
    if not name or name.translate(None, _NAME_OCTETS):
        return "not the name of a header"
    if name in _OF_HTTP_1 or (name == b"te" and value != b"trailers"):
        return "a header of HTTP/1"
    return _fault_of_value(value)


def _fault_of_value(value: bytes) -> str:
    # Spaces around a value are malformed too, but gRPC's clients send metadata as it was given.
    if len(value.translate(None, _NO_VALUE_OCTETS)) != len(value):
        return "not the value of a header"
    return ""
