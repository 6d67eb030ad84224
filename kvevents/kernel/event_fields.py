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

# The fields of events, in the order in which `read_event` returns their values: a BlockStored has
# them in this order, and the last one not at all. Other fields are passed over: whatever they
# contain, it takes no memory.
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

_INTEGERS = frozenset(map(FIELDS.index, ("block_size", "lora_id", "group_idx"))) | {10}
_LISTS = frozenset(map(FIELDS.index, ("extra_keys", "remaining_copy_counts")))
_LORA_NAME = cython.declare(cython.int, 6)
_LOOKAHEAD = cython.declare(cython.int, 11)
_ZERO = array("Q", [0])
_LONGEST_NAMES = {5: 64, 6: 1024, 9: 64}  # slots of medium, adapter and kind: characters


def read_field(reader: Reader, slot: cython.int) -> object:
    """The value of the field in `slot`: None or of the field's type, else raises UnexpectedError.

    Three of the fields have functions of their own.
    """
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
    i: cython.Py_ssize_t = 0
    reader.occupy(8 * count)
    values = _ZERO * count
    if count == 0:
        return values
    out: cython.p_ulonglong = items_of(values) if cython.compiled else values  # type: ignore[name-defined]  # noqa: F821
    while True:
        i = _read_wide_hashes(reader, reader.bytes_, out, i, count)
        if i == count:
            return values
        out[i] = _hash(reader, reader.next_byte())
        i += 1


def _read_wide_hashes(
    reader: Reader,
    data: cython.pointer[cython.const[cython.uchar]],
    out: cython.p_ulonglong,
    i: cython.Py_ssize_t,
    count: cython.Py_ssize_t,
) -> cython.Py_ssize_t:
    """Read hashes of 8 bytes into `out`, from `i` on; returns the first that is none."""
    last: cython.Py_ssize_t = reader.end - 9
    at: cython.Py_ssize_t = reader.position
    while i < count and at <= last and data[at] == 0xCF:
        out[i] = (
            cython.cast(cython.ulonglong, data[at + 1]) << 56
            | cython.cast(cython.ulonglong, data[at + 2]) << 48
            | cython.cast(cython.ulonglong, data[at + 3]) << 40
            | cython.cast(cython.ulonglong, data[at + 4]) << 32
            | cython.cast(cython.ulonglong, data[at + 5]) << 24
            | cython.cast(cython.ulonglong, data[at + 6]) << 16
            | cython.cast(cython.ulonglong, data[at + 7]) << 8
            | data[at + 8]
        )
        at += 9
        i += 1
    reader.position = at
    return i


def read_tokens(reader: Reader) -> array[int]:
    """A list of token ids; of a list of pairs (SGLang's EAGLE bigrams) the first of each.

    A list that is equal to the one before it, byte by byte, is the same array: the cache groups of
    a hybrid model announce the same tokens one after the other.
    """
    start: cython.Py_ssize_t = reader.position
    length: cython.Py_ssize_t = reader.tokens_end - reader.tokens_start
    values = reader.tokens
    if values is not None and _is_repeated(reader, reader.bytes_, length):
        reader.occupy(8 * len(values))
        reader.position = start + length
        return values
    values = _read_new_tokens(reader)
    reader.tokens_start, reader.tokens_end = start, reader.position
    reader.tokens = values
    return values


def _is_repeated(
    reader: Reader,
    data: cython.pointer[cython.const[cython.uchar]],
    length: cython.Py_ssize_t,
) -> cython.bint:
    """Whether the next bytes are those of the list of tokens before."""
    at: cython.Py_ssize_t = reader.position
    before: cython.Py_ssize_t = reader.tokens_start
    if reader.end - at < length:
        return False
    if cython.compiled:
        return memcmp(cython.address(data[before]), cython.address(data[at]), length) == 0  # type: ignore[name-defined]  # noqa: F821
    return data[before : before + length] == data[at : at + length]


def _read_new_tokens(reader: Reader) -> array[int]:
    count: cython.Py_ssize_t = reader.array_length()
    i: cython.Py_ssize_t = 0
    lead: cython.uchar
    reader.occupy(8 * count)
    values = _ZERO * count
    if count == 0:
        return values
    out: cython.p_ulonglong = items_of(values) if cython.compiled else values  # type: ignore[name-defined]  # noqa: F821
    while True:
        i = _read_short_tokens(reader, reader.bytes_, out, i, count)
        if i == count:
            return values
        lead = reader.next_byte()
        if lead == 0x92:
            out[i] = _token(reader, reader.next_byte())
            _token(reader, reader.next_byte())
        else:
            out[i] = _token(reader, lead)
        i += 1


def _read_short_tokens(
    reader: Reader,
    data: cython.pointer[cython.const[cython.uchar]],
    out: cython.p_ulonglong,
    i: cython.Py_ssize_t,
    count: cython.Py_ssize_t,
) -> cython.Py_ssize_t:
    """Read token ids of 1, 3 or 5 bytes into `out`, from `i` on; returns the first not read.

    It stops before anything else, and before the last few bytes of the payload.
    """
    last: cython.Py_ssize_t = reader.end - 5
    at: cython.Py_ssize_t = reader.position
    lead: cython.uint
    value: cython.uint
    while i < count and at <= last:
        lead = data[at]
        if lead == 0xCD or lead == 0xCE:
            # Both widths without a branch between them: they come in no order at all.
            value = (
                cython.cast(cython.uint, data[at + 1]) << 24
                | data[at + 2] << 16
                | data[at + 3] << 8
                | data[at + 4]
            )
            lead -= 0xCD
            out[i] = value >> (16 - 16 * lead)
            at += 3 + 2 * lead
        elif lead < 0x80:
            out[i] = lead
            at += 1
        else:
            break
        i += 1
    reader.position = at
    return i


def _token(reader: Reader, lead: cython.uchar) -> cython.ulonglong:
    if lead >= 0xE0 or 0xD0 <= lead <= 0xD3:
        raise UnexpectedError("a token id is negative")
    return reader.integer(lead)


def _hash(reader: Reader, lead: cython.uchar) -> cython.ulonglong:
    if 0xC4 <= lead <= 0xC6:
        digest = reader.take(reader.length(lead))
        return int.from_bytes(digest[max(0, len(digest) - 8) :], "big")
    return reader.integer(lead)
