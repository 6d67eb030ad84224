"""Fields of protobuf messages, encoded."""

from __future__ import annotations

_LENGTH_DELIMITED = 2  # the wire type


def varint(value: int) -> bytes:
    """Return a number that is not negative, seven bits a byte, the lowest first."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def length_delimited(number: int, content: bytes) -> bytes:
    """Return the field of this number that is a message, a text or bytes."""
    return varint(number << 3 | _LENGTH_DELIMITED) + varint(len(content)) + content
