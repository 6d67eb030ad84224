"""The compiled part: msgpack bytes -> the fields of one event.

In path order:

    reader  a cursor over one payload
"""

from __future__ import annotations

from kvevents.kernel.reader import ABSENT, FIELDS, MalformedError, Reader, UnexpectedError

__all__ = ["ABSENT", "FIELDS", "MalformedError", "Reader", "UnexpectedError"]
