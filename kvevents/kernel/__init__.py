"""The compiled part: msgpack bytes -> the fields of a batch's events.

In path order:

    batch_reader  a batch, event by event
    event_reader  one event
    event_fields  the fields of one event
    event_tails   what most events have in common
    reader        a cursor over msgpack bytes
"""

from __future__ import annotations

import indexer  # noqa: F401 - so that `import cython` works without Cython
from kvevents.kernel.batch_reader import BatchReader, ExcessError, UnknownEventError
from kvevents.kernel.event_fields import FIELDS
from kvevents.kernel.reader import MalformedError, TooLargeError, UnexpectedError

__all__ = [
    "FIELDS",
    "BatchReader",
    "ExcessError",
    "MalformedError",
    "TooLargeError",
    "UnexpectedError",
    "UnknownEventError",
]
