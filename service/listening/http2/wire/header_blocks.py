"""Header blocks: read with HPACK, with a cache, and written without tables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import hpack

from service.listening.http2.wire.frames import ConnectionFaultError, Fault
from service.listening.http2.wire.malformed import body_bytes, fault_of_request

if TYPE_CHECKING:
    from collections.abc import Iterable

LIST_BYTES = 64 * 1024
"""The longest list of headers that is read; the metadata of a call has a lower limit."""

_CACHED = 32  # blocks of a connection
_CACHED_BYTES = 512  # of a block
_CACHED_LIST_BYTES = 4096  # of its headers, which a block of one table may multiply
_STATUS_OK = b"\x88"
# A table may change its size twice before the headers; each change takes as long as a header.
_MANY_SIZES = re.compile(rb"(?:[\x20-\x3e]|\x3f[\x80-\xff]*[\x00-\x7f]){3}")


class Headers(list[tuple[bytes, bytes]]):
    """The headers of a request.

    Attributes:
        fault: why they are malformed, as those of a request; empty if they are not.
        body_bytes: the size of the body that they promise; None: they do not.
        meaning: what they mean, for whoever has read them before; equal ones come again.
    """

    __slots__ = ("body_bytes", "fault", "meaning")

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(pairs)
        self.fault = fault_of_request(self)
        self.body_bytes = body_bytes(self)
        self.meaning: Any = None


class HeaderDecoder:
    """Decodes the header blocks of a connection, in their order.

    The calls of a client mostly have the same headers, which its table holds after the first one:
    then their blocks are equal too, and so is what they mean until the table changes.
    """

    def __init__(self) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=LIST_BYTES)
        self._cache: dict[bytes, Headers] = {}

    def decode(self, block: bytes) -> Headers:
        """Return the headers of a block. Raises ConnectionFaultError."""
        headers = self._cache.get(block)
        if headers is None:
            if _MANY_SIZES.match(block):
                raise ConnectionFaultError(Fault.COMPRESSION_ERROR, "too many sizes of the table")
            table = self._decoder.header_table
            size, first, count = table.maxsize, self._first(), len(table.dynamic_entries)
            try:
                pairs = cast("Iterable[tuple[bytes, bytes]]", self._decoder.decode(block, raw=True))
                headers = Headers(pairs)
            except hpack.OversizedHeaderListError:
                text = f"the headers have more than {LIST_BYTES} bytes"
                raise ConnectionFaultError(Fault.ENHANCE_YOUR_CALM, text) from None
            except (hpack.HPACKError, UnicodeDecodeError, IndexError):
                raise ConnectionFaultError(Fault.COMPRESSION_ERROR, "not HPACK") from None
            # What is added comes first, and is another object than what was first before.
            is_same = first is self._first() and count == len(table.dynamic_entries)
            if not is_same or size != table.maxsize:
                self._cache.clear()
            elif len(self._cache) < _CACHED and _is_small(block, headers):
                self._cache[block] = headers
        return headers

    def _first(self) -> object:
        entries = self._decoder.header_table.dynamic_entries
        return entries[0] if entries else None


def _is_small(block: bytes, headers: Headers) -> bool:
    if len(block) > _CACHED_BYTES:
        return False
    return sum([len(name) + len(value) + 32 for name, value in headers]) <= _CACHED_LIST_BYTES


def encode(headers: Iterable[tuple[bytes, bytes]], *, begins: bool) -> bytes:
    """Return a block that needs no table.

    Args:
        headers: their names in lower case.
        begins: whether the response begins with it, so that it contains the status 200.
    """
    parts = [_STATUS_OK] if begins else []
    for name, value in headers:
        parts += (b"\0", _length(len(name)), name, _length(len(value)), value)
    return b"".join(parts)


def _length(size: int) -> bytes:
    """Return the length of a string that is not Huffman-coded, with a prefix of 7 bits."""
    if size < 0x7F:
        return bytes((size,))
    rest, octets = size - 0x7F, bytearray(b"\x7f")
    while rest >= 0x80:
        octets.append(rest & 0x7F | 0x80)
        rest >>= 7
    octets.append(rest)
    return bytes(octets)
