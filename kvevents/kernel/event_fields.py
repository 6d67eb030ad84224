# cython: boundscheck=False, wraparound=False, initializedcheck=False, warn.unreachable=False
"""msgpack -> the fields of one event, without a Python integer per token.

Compiled by Cython where a C compiler is at hand; the same source runs as plain Python elsewhere.
Lists of token ids and of engine hashes, nearly all of an event's bytes, go straight into arrays;
everything else becomes ordinary Python objects.
"""

from __future__ import annotations

from array import array

import cython

from kvevents.kernel.reader import Reader, UnexpectedError

# The fields of events, in the order in which `read_event` returns their values. Other fields are
# passed over: whatever they contain, it takes no memory.
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
    "lookahead_token_ids",
    "cache_salt",
    "origin",
    "remaining_copy_counts",
)
ABSENT = False  # the value of a field that an event does not have; None is a value it can have

_SLOTS = {name.encode(): slot for slot, name in enumerate(FIELDS)}
_TYPE_SLOT = cython.declare(cython.int, 100)
_SLOTS[b"type"] = 100
_INTEGERS = frozenset(map(FIELDS.index, ("block_size", "lora_id", "group_idx"))) | {10}
_LISTS = frozenset(map(FIELDS.index, ("extra_keys", "remaining_copy_counts")))
_LORA_NAME = cython.declare(cython.int, 6)
_LOOKAHEAD = cython.declare(cython.int, 11)
_LONGEST_NAMES = {5: 64, 6: 1024, 9: 64}  # slots of medium, adapter and kind: characters

# Events as arrays (vLLM up to 0.23, SGLang up to 0.5.18): the fields of the elements after the tag.
_STORED_ORDER = tuple(range(11))
_REMOVED_ORDER = (0, 5, 8)
_ORDERS = {"BlockStored": _STORED_ORDER, "BlockRemoved": _REMOVED_ORDER}


def read_event(reader: Reader) -> tuple[str, list[object], int]:
    """The next event: its type, the values of FIELDS, and how many elements its array has.

    The number of elements is 0 for a map. A field that the event does not have is ABSENT.
    `read_hashes` and `read_tokens` read two of the fields, `_is_list_with_items` a third; the other
    values are None or of the type that the field must have. Raises UnexpectedError for anything
    that is not such an event, MalformedError for broken bytes, TooLargeError beyond the limit.
    """
    lead: cython.uchar = reader.next_byte()
    count: cython.Py_ssize_t
    slot: cython.int
    values: list = [ABSENT] * 15
    tag: object = None
    if lead >> 4 == 0x8 or lead == 0xDE or lead == 0xDF:
        count = reader.length(lead)
        for _ in range(count):
            known = _SLOTS.get(reader.name())
            if known is None:
                reader.skip_nested(1)
                continue
            slot = known
            if slot == _TYPE_SLOT:
                tag = reader.read_nested(1)
            else:
                values[slot] = _read_field(reader, slot)
        count = 0
    elif lead >> 4 == 0x9 or lead == 0xDC or lead == 0xDD:
        count = reader.length(lead)
        tag = reader.read_nested(1) if count else None
        order = _ORDERS.get(tag, ()) if isinstance(tag, str) else ()
        for index in range(count - 1):
            if index < len(order):
                values[order[index]] = _read_field(reader, order[index])
            else:
                reader.skip_nested(1)
    else:
        raise UnexpectedError("an event is neither a map nor an array")
    if not isinstance(tag, str):
        raise UnexpectedError("an event has no type")
    return tag, values, count


def _read_field(reader: Reader, slot: cython.int) -> object:
    """The next object; raises UnexpectedError if the field in `slot` cannot have its type."""
    if slot == 2:
        return read_tokens(reader)
    if slot == 0:
        return read_hashes(reader)
    if slot == 1:
        if reader.position < reader.end and reader.bytes_[reader.position] == 0xC0:
            reader.position += 1
            return None
        return _hash(reader, reader.next_byte())
    if slot == _LOOKAHEAD:
        return _is_list_with_items(reader)
    value = reader.read_nested(1)
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
    longest = _LONGEST_NAMES.get(slot)
    if longest is not None and isinstance(value, str) and len(value) > longest:
        raise UnexpectedError(f"{FIELDS[slot]} has more than {longest} characters")
    return value


def _is_list_with_items(reader: Reader) -> bool | None:
    """Whether the next object, a list or nil, is a list that is not empty; passes over it."""
    start: cython.Py_ssize_t = reader.position
    if reader.next_byte() == 0xC0:
        return None
    reader.position = start
    count: cython.Py_ssize_t = reader.array_length()
    reader.position = start
    reader.skip_nested(1)
    return count > 0


def read_hashes(reader: Reader) -> array[int]:
    """A list of engine hashes, 64 bits each: integers modulo 2**64, the last 8 bytes of digests."""
    count: cython.Py_ssize_t = reader.array_length()
    i: cython.Py_ssize_t
    reader.occupy(8 * count)
    values = array("Q", bytes(8 * count))
    if count == 0:
        return values
    out: cython.ulonglong[::1] = values
    for i in range(count):
        out[i] = _hash(reader, reader.next_byte())
    return values


def read_tokens(reader: Reader) -> array[int]:
    """A list of token ids; of a list of pairs (SGLang's EAGLE bigrams) the first of each."""
    count: cython.Py_ssize_t = reader.array_length()
    i: cython.Py_ssize_t
    lead: cython.uchar
    reader.occupy(8 * count)
    values = array("Q", bytes(8 * count))
    if count == 0:
        return values
    out: cython.ulonglong[::1] = values
    data: cython.const[cython.uchar][::1] = reader.bytes_  # type: ignore[valid-type]
    at: cython.Py_ssize_t = reader.position
    value: cython.uint
    wide: cython.uint
    for i in range(count):
        if reader.end - at < 5:  # the last few, one by one
            reader.position = at
            lead = reader.next_byte()
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
            reader.position = at + 1
        if lead == 0x92:
            out[i] = _token(reader, reader.next_byte())
            _token(reader, reader.next_byte())
        else:
            out[i] = _token(reader, lead)
        at = reader.position
    reader.position = at
    return values


def _token(reader: Reader, lead: cython.uchar) -> cython.ulonglong:
    if lead >= 0xE0 or 0xD0 <= lead <= 0xD3:
        raise UnexpectedError("a token id is negative")
    return reader.integer(lead)


def _hash(reader: Reader, lead: cython.uchar) -> cython.ulonglong:
    if 0xC4 <= lead <= 0xC6:
        digest = reader.take(reader.length(lead))
        return int.from_bytes(digest[max(0, len(digest) - 8) :], "big")
    return reader.integer(lead)
