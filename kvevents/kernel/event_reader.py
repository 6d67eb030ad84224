# cython: boundscheck=False, wraparound=False, initializedcheck=False, warn.unreachable=False
"""msgpack -> one event: a map of its fields, or an array of them.

Compiled by Cython where a C compiler is at hand; the same source runs as plain Python elsewhere.
"""

from __future__ import annotations

import cython

from kvevents.kernel.event_fields import FIELDS, read_field
from kvevents.kernel.event_tails import EventTail, known_tail, remember_tail
from kvevents.kernel.reader import Reader, UnexpectedError

_SLOTS = {name.encode(): slot for slot, name in enumerate(FIELDS)}
_TYPE_SLOT = cython.declare(cython.int, 100)
_OTHER_SLOT = cython.declare(cython.int, 101)
_SLOTS[b"type"] = 100
_BLOCKS = cython.declare(cython.uint, 0b111)  # the hashes, the parent and the tokens

# Events as arrays (vLLM up to 0.23, SGLang up to 0.5.18): the fields of the elements after the tag.
_STORED_ORDER = tuple(range(11))
_REMOVED_ORDER = (0, 5, 8)
_ORDERS = {"BlockStored": _STORED_ORDER, "BlockRemoved": _REMOVED_ORDER}


def read_event(reader: Reader) -> tuple[object, list[object], int, int]:
    """The next event: its type, the values of FIELDS, which fields it has, the size of its array.

    Fields that it does not have are None; bit `i` of the third result says that it has field `i`.
    The fourth is the number of elements of an array, 0 for a map. Raises UnexpectedError for what
    is not such an event, MalformedError for broken bytes, TooLargeError beyond the limit.
    """
    lead: cython.uchar = reader.next_byte()
    reader.tail = None
    if lead >> 4 == 0x8 or lead == 0xDE or lead == 0xDF:
        event = _read_map(reader, reader.length(lead))
    elif lead >> 4 == 0x9 or lead == 0xDC or lead == 0xDD:
        event = _read_array(reader, reader.length(lead))
    else:
        raise UnexpectedError("an event is neither a map nor an array")
    if not isinstance(event[0], str):
        raise UnexpectedError("an event has no type")
    return event


def _read_map(reader: Reader, count: cython.Py_ssize_t) -> tuple[object, list[object], int, int]:
    slot: cython.int
    present: cython.uint = 0
    start: cython.Py_ssize_t = -1  # of the tail; -2 if other fields than its own are in it
    occupied: cython.Py_ssize_t = 0
    tail: EventTail | None
    values: list = [None] * 15
    tag: object = None
    while count > 0:
        if present == _BLOCKS and start == -1 and tag == "BlockStored":
            tail = known_tail(reader, 2 * count, 0)
            if tail is not None:
                return tag, values[:3] + tail.values, tail.present, 0
            start, occupied = reader.position, reader.occupied
        count -= 1
        slot = _SLOTS.get(reader.name(), _OTHER_SLOT)
        if slot == _OTHER_SLOT:
            reader.skip_nested(1)
            continue
        if slot == _TYPE_SLOT:
            tag = reader.read_nested(1)
        else:
            values[slot] = read_field(reader, slot)
            present |= 1 << slot
        if start >= 0 and (slot <= 2 or slot == _TYPE_SLOT):
            start = -2
    remember_tail(reader, start, occupied, values, present, 0)
    return tag, values, present, 0


def _read_array(reader: Reader, count: cython.Py_ssize_t) -> tuple[object, list[object], int, int]:
    slot: cython.int
    present: cython.uint = 0
    start: cython.Py_ssize_t = -1
    occupied: cython.Py_ssize_t = 0
    tail: EventTail | None
    values: list = [None] * 15
    tag: object = reader.read_nested(1) if count else None
    order = _ORDERS.get(tag, ()) if isinstance(tag, str) else ()
    for slot in order[: count - 1]:
        if slot == 3:  # of a BlockStored
            tail = known_tail(reader, count - 4, count)
            if tail is not None:
                return tag, values[:3] + tail.values, tail.present, count
            start, occupied = reader.position, reader.occupied
        values[slot] = read_field(reader, slot)
        present |= 1 << slot
    for _ in range(count - 1 - len(order)):
        reader.skip_nested(1)
    remember_tail(reader, start, occupied, values, present, count)
    return tag, values, present, count
