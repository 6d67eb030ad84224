# cython: boundscheck=False, wraparound=False, initializedcheck=False, warn.unreachable=False
"""A cursor over msgpack bytes.

Compiled by Cython where a C compiler is at hand; the same source runs as plain Python elsewhere.
Every length is checked against the bytes that are left, so that a lie about a length costs nothing.
"""

from __future__ import annotations

from array import array

import cython

_MASK = 0xFFFFFFFFFFFFFFFF
_MAX_DEPTH = 16
_NO_LIMIT = 0x7FFFFFFFFFFFFFFF
# What Python objects occupy, at most, besides the bytes of strings. Generous, because the limit
# also bounds the time that they take to make.
_OBJECT_BYTES = cython.declare(cython.int, 256)
_SLOT_BYTES = cython.declare(cython.int, 32)
_PAIR_BYTES = cython.declare(cython.int, 104)


class MalformedError(ValueError):
    """The bytes are not msgpack, or end too early."""


class UnexpectedError(ValueError):
    """Well-formed msgpack, but not of the shape an event has."""


class TooLargeError(ValueError):
    """What is read occupies more memory than the reader may use."""


@cython.cclass
class Reader:
    """A cursor over one payload.

    Args:
        data: the payload.
        limit: bytes that everything read from it may occupy, about; beyond it every method that
            reads raises TooLargeError.

    Attributes:
        data: the payload.
        position: offset of the next byte that is read.
        end: length of the payload.
        tokens: the list of token ids that was read last, from `tokens_start` to `tokens_end`.
        tail: that of the event read last, None if it is not remembered.
        occupied: bytes that everything read so far occupies, about. One byte of a payload can
            become 64 in memory.
    """

    def __init__(self, data: bytes, limit: cython.Py_ssize_t = _NO_LIMIT) -> None:
        self.data = data
        self.bytes_ = data
        self.position = 0
        self.end = len(data)
        self.occupied = 0
        self._limit = limit
        self.tokens_start = self.tokens_end = 0
        self.tokens: array[int] | None = None
        self.tail: object = None

    def occupy(self, count: cython.Py_ssize_t) -> cython.int:
        """Add to the bytes that are occupied. Raises TooLargeError beyond the limit."""
        self.occupied += count
        if self.occupied > self._limit:
            raise TooLargeError(f"what is read occupies more than {self._limit} bytes")
        return 0

    def seek(self, position: cython.Py_ssize_t) -> None:
        """Go on reading at `position`."""
        self.position = position

    def array_length(self) -> int:
        """Enter an array; returns its length. Raises UnexpectedError if there is none."""
        lead: cython.uchar = self.next_byte()
        if not (lead >> 4 == 0x9 or lead == 0xDC or lead == 0xDD):
            raise UnexpectedError("an array was expected")
        return self.length(lead)

    def map_length(self) -> int:
        """Enter a map; returns how many pairs it has. Raises UnexpectedError if there is none."""
        lead: cython.uchar = self.next_byte()
        if not (lead >> 4 == 0x8 or lead == 0xDE or lead == 0xDF):
            raise UnexpectedError("a map was expected")
        return self.length(lead)

    def name(self) -> bytes:
        """The next object, a field's name in UTF-8. Raises UnexpectedError if it is no string."""
        lead: cython.uchar = self.next_byte()
        if not (0xA0 <= lead < 0xC0 or 0xD9 <= lead <= 0xDB):
            raise UnexpectedError("an event's field has no name")
        return self.take(self.length(lead))

    def read(self) -> object:
        """The next object: None, bool, int, float, str, bytes, list or dict."""
        return self.read_nested(0)

    def skip(self) -> None:
        """Pass over the next object, of any type."""
        self.skip_nested(0)

    def next_byte(self) -> cython.uchar:
        """The next byte; for an object, its head. Raises MalformedError at the end."""
        if self.position >= self.end:
            raise MalformedError("the payload ends too early")
        self.position += 1
        return self.bytes_[self.position - 1]

    def _unsigned(self, width: cython.Py_ssize_t) -> cython.ulonglong:
        """The next `width` bytes, big-endian."""
        value: cython.ulonglong = 0
        i: cython.Py_ssize_t
        if self.end - self.position < width:
            raise MalformedError("the payload ends too early")
        for i in range(width):
            value = value << 8 | self.bytes_[self.position + i]
        self.position += width
        return value

    def take(self, count: cython.Py_ssize_t) -> bytes:
        """The next `count` bytes. Raises MalformedError if there are fewer."""
        if self.end - self.position < count:
            raise MalformedError("the payload ends too early")
        self.position += count
        return self.data[self.position - count : self.position]

    def length(self, lead: cython.uchar) -> cython.Py_ssize_t:
        """The length that `lead`, the head of a string, array or map, announces.

        Raises MalformedError if it is more than the bytes that follow: no room is reserved for it.
        """
        length: cython.ulonglong
        if lead < 0xA0:
            length = lead & 0x0F
        elif lead < 0xC0:
            length = lead & 0x1F
        elif lead == 0xC4 or lead == 0xD9:
            length = self._unsigned(1)
        elif lead == 0xC5 or lead == 0xDA or lead == 0xDC or lead == 0xDE:
            length = self._unsigned(2)
        else:
            length = self._unsigned(4)
        if length > cython.cast(cython.ulonglong, self.end - self.position):
            raise MalformedError("the payload ends too early")
        return length

    def integer(self, lead: cython.uchar) -> cython.ulonglong:
        """The integer whose head is `lead`, modulo 2**64. Raises UnexpectedError if it is none."""
        value: cython.ulonglong
        width: cython.Py_ssize_t
        if lead < 0x80:
            return lead
        if 0xCC <= lead <= 0xCF:
            return self._unsigned(1 << (lead - 0xCC))
        if 0xD0 <= lead <= 0xD3:
            width = 1 << (lead - 0xD0)
            value = self._unsigned(width)
            if width < 8 and value >> (8 * width - 1):
                return self._sign_extended(value, width)
            return value
        if lead >= 0xE0:
            return self._sign_extended(lead, 1)
        raise UnexpectedError("an integer was expected")

    def _sign_extended(self, value: cython.ulonglong, width: cython.Py_ssize_t) -> int:
        one: cython.ulonglong = 1
        return (value - (one << (8 * width))) & _MASK

    def read_nested(self, depth: cython.int) -> object:
        """The next object, at `depth` within others. Raises MalformedError, UnexpectedError."""
        lead: cython.uchar = self.next_byte()
        if depth > _MAX_DEPTH:
            raise MalformedError("nested too deeply")
        if lead == 0xC0:
            self.occupy(_SLOT_BYTES)
            return None
        self.occupy(_OBJECT_BYTES)
        if lead < 0x80 or 0xCC <= lead <= 0xCF:
            return self.integer(lead)
        if 0xD0 <= lead <= 0xD3:
            width = 1 << (lead - 0xD0)
            return int.from_bytes(self.take(width), "big", signed=True)
        if lead >= 0xE0:
            return lead - 0x100
        if 0xA0 <= lead < 0xC0 or 0xD9 <= lead <= 0xDB:
            return self._text(self.take(self.length(lead)))
        if lead >> 4 == 0x9 or lead == 0xDC or lead == 0xDD:
            return self._list(self.length(lead), depth)
        if lead >> 4 == 0x8 or lead == 0xDE or lead == 0xDF:
            return self._map(self.length(lead), depth)
        if lead == 0xC2 or lead == 0xC3:
            return lead == 0xC3
        if 0xC4 <= lead <= 0xC6:
            raw = self.take(self.length(lead))
            self.occupy(len(raw))
            return raw
        if lead == 0xCB or lead == 0xCA:
            return self._float(lead)
        if lead == 0xC1:
            raise MalformedError("a byte msgpack does not use")
        raise UnexpectedError("an extension type")

    def _text(self, raw: bytes) -> str:
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise UnexpectedError("a string is not UTF-8") from None
        self.occupy(len(text) if text.isascii() else 4 * len(text))
        return text

    def _list(self, count: cython.Py_ssize_t, depth: cython.int) -> list[object]:
        nils: cython.Py_ssize_t = 0
        if depth < _MAX_DEPTH:  # the extra keys of most blocks
            while nils < count and self.bytes_[self.position + nils] == 0xC0:
                nils += 1
            self.position += nils
            self.occupy(_SLOT_BYTES * nils)
        result: list = [None] * nils
        for _ in range(count - nils):
            result.append(self.read_nested(depth + 1))
        return result

    def _map(self, count: cython.Py_ssize_t, depth: cython.int) -> dict[object, object]:
        result: dict = {}
        for _ in range(count):
            self.occupy(_PAIR_BYTES)
            key = self.read_nested(depth + 1)
            if isinstance(key, (list, dict)):
                raise UnexpectedError("a map has a compound key")
            result[key] = self.read_nested(depth + 1)
        return result

    def _float(self, lead: cython.uchar) -> float:
        bits: cython.ulonglong
        value: cython.double = 0
        if cython.compiled and lead == 0xCB:
            bits = self._unsigned(8)
            memcpy(cython.address(value), cython.address(bits), 8)  # type: ignore[name-defined]  # noqa: F821
            return value
        raw = self.take(8 if lead == 0xCB else 4)[::-1]  # machine order below is little-endian
        if _BIG_ENDIAN:
            raw = raw[::-1]
        return array("d" if lead == 0xCB else "f", raw)[0]

    def skip_nested(self, depth: cython.int) -> cython.int:
        """Pass over the next object, at `depth` within others. Raises MalformedError."""
        lead: cython.uchar = self.next_byte()
        count: cython.Py_ssize_t = 0
        if depth > _MAX_DEPTH:
            raise MalformedError("nested too deeply")
        if 0xA0 <= lead < 0xC0 or 0xC4 <= lead <= 0xC6 or 0xD9 <= lead <= 0xDB:
            count = self.length(lead)  # it moves the position: not within one expression
            self.position += count
            count = 0
        elif lead >> 4 == 0x9 or lead == 0xDC or lead == 0xDD:
            count = self.length(lead)
        elif lead >> 4 == 0x8 or lead == 0xDE or lead == 0xDF:
            count = 2 * self.length(lead)
        elif 0xCC <= lead <= 0xD3:
            self._unsigned(1 << ((lead - 0xCC) & 3))
        elif lead == 0xCA or lead == 0xCB:
            self._unsigned(4 if lead == 0xCA else 8)
        elif 0xC7 <= lead <= 0xC9:
            count = self._unsigned(1 << (lead - 0xC7)) + 1  # an extension: its type, its bytes
            self.take(count)
            count = 0
        elif 0xD4 <= lead <= 0xD8:
            self.take((1 << (lead - 0xD4)) + 1)
        elif lead == 0xC1:
            raise MalformedError("a byte msgpack does not use")
        while count > 0:
            self.skip_nested(depth + 1)
            count -= 1
        return 0


_BIG_ENDIAN = array("H", b"\x00\x01")[0] == 1
