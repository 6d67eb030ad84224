"""TODO map."""

from __future__ import annotations

from store.write.write_batch import JOURNAL_ENTRIES, OwnedWorker
from store.write.writer import Writer

__all__ = [
    "JOURNAL_ENTRIES",
    "OwnedWorker",
    "Writer",
]
