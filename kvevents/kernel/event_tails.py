# cython: boundscheck=False, wraparound=False, initializedcheck=False, warn.unreachable=False
"""What comes after the blocks of an event, and is the same in nearly all events of an engine.

Equal bytes mean equal fields: a tail that came before need not be read again. Events without a
short tail, or with extra keys of their own, are read field by field.
"""

from __future__ import annotations

import cython

from kvevents.kernel.reader import Reader

_MOST_TAILS = 512
_LONGEST_TAIL = cython.declare(cython.Py_ssize_t, 512)  # bytes


@cython.cclass
class EventTail:
    """The fields of a BlockStored after its hashes, parent and tokens, the same in most events.

    Attributes:
        values, present: what `read_event` returns of them.
        occupied: about how many bytes they occupy.
        arguments: what an event is made of after hashes, parent and tokens; None if not known yet.
    """

    def __init__(self, values: list, present: cython.uint, occupied: cython.Py_ssize_t) -> None:
        self.values = values
        self.present = present
        self.occupied = occupied
        self.arguments: tuple[object, ...] | None = None


TAILS: dict[tuple[bytes, int], EventTail] = {}
"""The tails that came before, by their bytes and the sizes of their events' arrays."""


def known_tail(
    reader: Reader, objects: cython.Py_ssize_t, elements: cython.Py_ssize_t
) -> EventTail | None:
    """Pass over a tail that was read before, and return it; None if the next one was not.

    objects: how many msgpack objects it has. elements: the size of the event's array, or 0.
    """
    start: cython.Py_ssize_t = reader.position
    end: cython.Py_ssize_t = _end_of_tail(reader, reader.bytes_, objects)
    if end < 0:
        return None
    tail: EventTail | None = TAILS.get((reader.data[start:end], elements))
    if tail is None:
        return None
    reader.occupy(tail.occupied)
    reader.position = end
    reader.tail = tail
    return tail


def _end_of_tail(
    reader: Reader,
    data: cython.pointer[cython.const[cython.uchar]],
    objects: cython.Py_ssize_t,
) -> cython.Py_ssize_t:
    """Where a short tail of simple objects ends that begins here; -1 if it is not one.

    As bytes say where an object ends, equal bytes are equally many objects.
    """
    at: cython.Py_ssize_t = reader.position
    end: cython.Py_ssize_t = min(reader.end, at + _LONGEST_TAIL)
    lead: cython.uchar
    while objects > 0:
        if at >= end:
            return -1
        lead = data[at]
        at += 1
        objects -= 1
        if lead < 0x80 or lead >= 0xE0 or lead == 0xC0 or lead == 0xC2 or lead == 0xC3:
            continue
        if 0xA0 <= lead < 0xC0:
            at += lead & 0x1F
        elif 0xCC <= lead <= 0xD3:
            at += 1 << ((lead - 0xCC) & 3)
        elif lead >> 4 == 0x9:
            objects += lead & 0x0F
        elif lead == 0xDC and at + 2 <= end:
            objects += data[at] << 8 | data[at + 1]
            at += 2
        else:
            return -1
    return at if at <= end else -1


def remember_tail(
    reader: Reader,
    start: cython.Py_ssize_t,
    occupied: cython.Py_ssize_t,
    values: list,
    present: cython.uint,
    elements: cython.Py_ssize_t,
) -> cython.int:
    """Remember the fields from `start` on, where the reader had `occupied` as many bytes."""
    extra_keys = values[7]
    if start < 0 or reader.position - start > _LONGEST_TAIL:
        return 0
    if extra_keys is not None and any(extra_keys):
        return 0  # those of other blocks differ
    if len(TAILS) >= _MOST_TAILS:
        TAILS.clear()
    tail = EventTail(values[3:], present, reader.occupied - occupied)
    TAILS[reader.data[start : reader.position], elements] = tail
    reader.tail = tail
    return 0
