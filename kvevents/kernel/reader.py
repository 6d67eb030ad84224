# cython: boundscheck=False, wraparound=False, initializedcheck=False, warn.unreachable=False
"""msgpack -> the fields of one event, without a Python integer per token.

Compiled by Cython where a C compiler is at hand; the same source runs as plain Python elsewhere.
Lists of token ids and of engine hashes, nearly all of an event's bytes, go straight into arrays;
all else becomes ordinary Python objects. Every length is checked against the bytes at hand.
"""

from __future__ import annotations

from array import array

import cython

_MASK = 0xFFFFFFFFFFFFFFFF
_DEEPEST = 16

# The fields of events, in the order of `BlockStored`; `Reader.event` gives their values in it.
FIELDS = (
    "block_hashes",
    "parent_block_hash",
    "token_ids",
    "block_size",
    "lora_id",
    "medium",
    "lora_name",
    "extra_keys",
    "group_idx",
    "kv_cache_spec_kind",
    "kv_cache_spec_sliding_window",
    "locality",
    "ownership",
    "session_id",
    "lookahead_token_ids",
    "cache_salt",
    "origin",
    "remaining_copy_counts",
)
ABSENT = False  # of a field that has not come at all, while None may be said

_SLOTS = {name.encode(): slot for slot, name in enumerate(FIELDS)}
_TYPE_SLOT = cython.declare(cython.int, 100)
_SLOTS[b"type"] = 100
_INTEGERS = frozenset(map(FIELDS.index, ("block_size", "lora_id", "group_idx"))) | {10}
_LISTS = frozenset(
    map(FIELDS.index, ("extra_keys", "lookahead_token_ids", "remaining_copy_counts"))
)
_LORA_NAME = cython.declare(cython.int, 6)

# Events as arrays (vLLM up to 0.23, SGLang up to 0.5.18): the slots of the elements after the tag.
_STORED_ORDER = tuple(range(11))
_REMOVED_ORDER = (0, 5, 8)
_ORDERS = {"BlockStored": _STORED_ORDER, "BlockRemoved": _REMOVED_ORDER}


class MalformedError(ValueError):
    """The bytes are not msgpack, or end too early."""


class UnexpectedError(ValueError):
    """Well-formed msgpack, but not of the shape an event has."""


@cython.cclass
class Reader:
    """A cursor over one payload. `position` is where the next call reads."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._bytes = data
        self.position = 0
        self._end = len(data)

    def seek(self, position: cython.Py_ssize_t) -> None:
        """Read on from `position`."""
        self.position = position

    def array_length(self) -> int:
        """Enter an array; returns how many elements follow. Raises UnexpectedError if none."""
        lead: cython.uchar = self._lead()
        if not (lead >> 4 == 0x9 or lead == 0xDC or lead == 0xDD):
            raise UnexpectedError("an array was expected")
        return self._length(lead)

    def map_length(self) -> int:
        """Enter a map; returns how many pairs follow. Raises UnexpectedError if there is none."""
        lead: cython.uchar = self._lead()
        if not (lead >> 4 == 0x8 or lead == 0xDE or lead == 0xDF):
            raise UnexpectedError("a map was expected")
        return self._length(lead)

    def name(self) -> bytes:
        """The next object, a field's name. Raises UnexpectedError if it is no string."""
        return self._name()

    def read(self) -> object:
        """The next object: None, bool, int, float, str, bytes, list or dict."""
        return self._read(0)

    def skip(self) -> None:
        """Pass over the next object, whatever it is."""
        self._skip(0)

    def event(self) -> tuple[str, list[object], int]:
        """The next event: its type, the values of FIELDS, and its element count if an array.

        The count is 0 for a map. A field that has not come is ABSENT. `block_hashes` and
        `token_ids` are `array('Q')`s, see `hashes` and `tokens`; the others have the types they
        must have, or are None. Raises UnexpectedError for what is no such event.
        """
        lead: cython.uchar = self._lead()
        count: cython.Py_ssize_t
        slot: cython.int
        values: list = [ABSENT] * 18
        tag: object = None
        if lead >> 4 == 0x8 or lead == 0xDE or lead == 0xDF:
            count = self._length(lead)
            for _ in range(count):
                known = _SLOTS.get(self._name())
                if known is None:
                    self._skip(1)
                    continue
                slot = known
                if slot == _TYPE_SLOT:
                    tag = self._read(1)
                else:
                    values[slot] = self._value(slot)
            count = 0
        elif lead >> 4 == 0x9 or lead == 0xDC or lead == 0xDD:
            count = self._length(lead)
            tag = self._read(1) if count else None
            order = _ORDERS.get(tag, ()) if isinstance(tag, str) else ()
            for index in range(count - 1):
                if index < len(order):
                    values[order[index]] = self._value(order[index])
                else:
                    self._skip(1)
        else:
            raise UnexpectedError("an event is neither a map nor an array")
        if not isinstance(tag, str):
            raise UnexpectedError("an event has no type")
        return tag, values, count

    def _name(self) -> bytes:
        """The next object, a field's name, in UTF-8."""
        lead: cython.uchar = self._lead()
        if not (0xA0 <= lead < 0xC0 or 0xD9 <= lead <= 0xDB):
            raise UnexpectedError("an event's field has no name")
        return self._take(self._length(lead))

    def _value(self, slot: cython.int) -> object:
        """The next object, which must be of the type that the field in `slot` has, or None."""
        if slot == 2:
            return self.tokens()
        if slot == 0:
            return self.hashes()
        if slot == 1:
            if self.position < self._end and self._bytes[self.position] == 0xC0:
                self.position += 1
                return None
            return self._hash(self._lead())
        value = self._read(1)
        if value is None:
            return None
        if slot in _INTEGERS:
            right = isinstance(value, int)
        elif slot in _LISTS:
            right = isinstance(value, list)
        else:  # SGLang 0.5.18 has a map of metadata where vLLM's arrays have the adapter
            right = isinstance(value, str) or (slot == _LORA_NAME and isinstance(value, dict))
        if not right:
            raise UnexpectedError(f"{FIELDS[slot]} is {type(value).__name__}")
        return value

    def hashes(self) -> array[int]:
        """A list of engine hashes as 64 bits each: integers modulo 2**64, digests' last 8 bytes."""
        count: cython.Py_ssize_t = self.array_length()
        i: cython.Py_ssize_t
        values = array("Q", bytes(8 * count))
        if count == 0:
            return values
        out: cython.ulonglong[::1] = values
        for i in range(count):
            out[i] = self._hash(self._lead())
        return values

    def tokens(self) -> array[int]:
        """A list of token ids; of a list of pairs (SGLang's EAGLE bigrams) the first of each."""
        count: cython.Py_ssize_t = self.array_length()
        i: cython.Py_ssize_t
        lead: cython.uchar
        values = array("Q", bytes(8 * count))
        if count == 0:
            return values
        out: cython.ulonglong[::1] = values
        data: cython.const[cython.uchar][::1] = self._bytes  # type: ignore[valid-type]
        at: cython.Py_ssize_t = self.position
        value: cython.uint
        wide: cython.uint
        for i in range(count):
            if self._end - at < 5:  # the last few, one by one
                self.position = at
                lead = self._lead()
            elif data[at] < 0x80:
                out[i] = data[at]
                at += 1
                continue
            elif data[at] == 0xCD or data[at] == 0xCE:
                # Both widths without a branch between them: they come in no order at all.
                wide = data[at] - 0xCD
                value = (
                    cython.cast(cython.uint, data[at + 1]) << 24
                    | data[at + 2] << 16
                    | data[at + 3] << 8
                    | data[at + 4]
                )
                out[i] = value >> (16 - 16 * wide)
                at += 3 + 2 * wide
                continue
            else:
                lead = data[at]
                self.position = at + 1
            if lead == 0x92:
                out[i] = self._token(self._lead())
                self._token(self._lead())
            else:
                out[i] = self._token(lead)
            at = self.position
        self.position = at
        return values

    def _token(self, lead: cython.uchar) -> cython.ulonglong:
        if lead >= 0xE0 or 0xD0 <= lead <= 0xD3:
            raise UnexpectedError("a token id is negative")
        return self._integer(lead)

    def _hash(self, lead: cython.uchar) -> cython.ulonglong:
        if 0xC4 <= lead <= 0xC6:
            return int.from_bytes(self._take(self._length(lead))[-8:], "big")
        return self._integer(lead)

    def _lead(self) -> cython.uchar:
        if self.position >= self._end:
            raise MalformedError("the payload ends too early")
        self.position += 1
        return self._bytes[self.position - 1]

    def _unsigned(self, width: cython.Py_ssize_t) -> cython.ulonglong:
        """The next `width` bytes, big-endian."""
        value: cython.ulonglong = 0
        i: cython.Py_ssize_t
        if self._end - self.position < width:
            raise MalformedError("the payload ends too early")
        for i in range(width):
            value = value << 8 | self._bytes[self.position + i]
        self.position += width
        return value

    def _take(self, count: cython.Py_ssize_t) -> bytes:
        if self._end - self.position < count:
            raise MalformedError("the payload ends too early")
        self.position += count
        return self._data[self.position - count : self.position]

    def _length(self, lead: cython.uchar) -> cython.Py_ssize_t:
        """The length that the head byte `lead` of a string, array or map announces.

        It is never more than the bytes that follow, so that nobody reserves room for a lie.
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
        if length > cython.cast(cython.ulonglong, self._end - self.position):
            raise MalformedError("the payload ends too early")
        return length

    def _integer(self, lead: cython.uchar) -> cython.ulonglong:
        """An integer modulo 2**64."""
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

    def _read(self, depth: cython.int) -> object:
        lead: cython.uchar = self._lead()
        if depth > _DEEPEST:
            raise MalformedError("nested too deeply")
        if lead < 0x80 or 0xCC <= lead <= 0xCF:
            return self._integer(lead)
        if 0xD0 <= lead <= 0xD3:
            width = 1 << (lead - 0xD0)
            return int.from_bytes(self._take(width), "big", signed=True)
        if lead >= 0xE0:
            return lead - 0x100
        if 0xA0 <= lead < 0xC0 or 0xD9 <= lead <= 0xDB:
            try:
                return self._take(self._length(lead)).decode()
            except UnicodeDecodeError:
                raise UnexpectedError("a string is not UTF-8") from None
        if lead >> 4 == 0x9 or lead == 0xDC or lead == 0xDD:
            return [self._read(depth + 1) for _ in range(self._length(lead))]
        if lead >> 4 == 0x8 or lead == 0xDE or lead == 0xDF:
            return self._map(self._length(lead), depth)
        if lead == 0xC0:
            return None
        if lead == 0xC2 or lead == 0xC3:
            return lead == 0xC3
        if 0xC4 <= lead <= 0xC6:
            return self._take(self._length(lead))
        if lead == 0xCB or lead == 0xCA:
            return self._float(lead)
        if lead == 0xC1:
            raise MalformedError("a byte msgpack does not use")
        raise UnexpectedError("an extension type")

    def _map(self, count: cython.Py_ssize_t, depth: cython.int) -> dict[object, object]:
        result: dict = {}
        for _ in range(count):
            key = self._read(depth + 1)
            if isinstance(key, (list, dict)):
                raise UnexpectedError("a map has a compound key")
            result[key] = self._read(depth + 1)
        return result

    def _float(self, lead: cython.uchar) -> float:
        raw = self._take(8 if lead == 0xCB else 4)[::-1]  # machine order below is little-endian
        if _BIG_ENDIAN:
            raw = raw[::-1]
        return array("d" if lead == 0xCB else "f", raw)[0]

    def _skip(self, depth: cython.int) -> cython.int:
        lead: cython.uchar = self._lead()
        count: cython.Py_ssize_t = 0
        if depth > _DEEPEST:
            raise MalformedError("nested too deeply")
        if 0xA0 <= lead < 0xC0 or 0xC4 <= lead <= 0xC6 or 0xD9 <= lead <= 0xDB:
            count = self._length(lead)  # moves the position itself: not within one expression
            self.position += count
            count = 0
        elif lead >> 4 == 0x9 or lead == 0xDC or lead == 0xDD:
            count = self._length(lead)
        elif lead >> 4 == 0x8 or lead == 0xDE or lead == 0xDF:
            count = 2 * self._length(lead)
        elif 0xCC <= lead <= 0xD3:
            self._unsigned(1 << ((lead - 0xCC) & 3))
        elif lead == 0xCA or lead == 0xCB:
            self._unsigned(4 if lead == 0xCA else 8)
        elif 0xC7 <= lead <= 0xC9:
            count = self._unsigned(1 << (lead - 0xC7)) + 1  # an extension: its type, its bytes
            self._take(count)
            count = 0
        elif 0xD4 <= lead <= 0xD8:
            self._take((1 << (lead - 0xD4)) + 1)
        elif lead == 0xC1:
            raise MalformedError("a byte msgpack does not use")
        while count > 0:
            self._skip(depth + 1)
            count -= 1
        return 0


_BIG_ENDIAN = array("H", b"\x00\x01")[0] == 1
