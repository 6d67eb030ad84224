# cython: boundscheck=False, wraparound=False, initializedcheck=False, warn.unreachable=False
"""The fields of `PodScore` and `ScoreResponse`, encoded."""

from __future__ import annotations

import struct

import cython

from service.kernel.wire import varint


def counts_of(score: float, matched: int, tokens: int, by_tier: dict[str, int]) -> bytes:
    """Encode what a pod holds: the fields before its rank."""
    encoded = b"\x11" + struct.pack("<d", score) if score else b""
    if not matched:
        return encoded
    encoded += b"\x18" + varint(matched) + b"\x20" + varint(tokens)
    for tier, blocks in by_tier.items():
        entry = (text_field(b"\x0a", tier) or b"\x0a\x00") + b"\x10" + varint(blocks)
        encoded += b"\x2a" + varint(len(entry)) + entry
    return encoded


def text_field(tag: bytes, text: str) -> bytes:
    """Return a field of text, nothing for an empty one."""
    encoded = text.encode()
    return tag + varint(len(encoded)) + encoded if encoded else b""


_SHORT = [b"\x0a" + varint(size) for size in range(1024)]


def pod_prefix(size: cython.Py_ssize_t) -> bytes:
    """Return the tag of the field `pods`, and the size of what follows."""
    return _SHORT[size] if size < 1024 else b"\x0a" + varint(size)
