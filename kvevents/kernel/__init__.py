"""The compiled part: msgpack bytes -> the fields of one event.

In path order:

    event_fields  the fields of one event
    reader        a cursor over msgpack bytes
"""

from __future__ import annotations

from kvevents.kernel.event_fields import ABSENT, FIELDS, read_event
from kvevents.kernel.reader import MalformedError, Reader, TooLargeError, UnexpectedError

__all__ = [
    "ABSENT",
    "FIELDS",
    "MalformedError",
    "Reader",
    "TooLargeError",
    "UnexpectedError",
    "read_event",
]
