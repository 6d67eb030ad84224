"""TODO map."""

from __future__ import annotations

from store.read.follower import Follower, RemoteWorker
from store.read.lookup import Lookup, LookupResult

__all__ = [
    "Follower",
    "Lookup",
    "LookupResult",
    "RemoteWorker",
]
