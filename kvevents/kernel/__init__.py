"""TODO map."""

from __future__ import annotations

from kvevents.kernel.reader import ABSENT, FIELDS, MalformedError, Reader, UnexpectedError

__all__ = [
    "ABSENT",
    "FIELDS",
    "MalformedError",
    "Reader",
    "UnexpectedError",
]
