"""What this replica reads from the store: other replicas' workers, and prompts.

`follower` and `lookup` are two ways to the same answers: from a copy, and without one.

    follower          keeps a copy of other replicas' workers up to date
    generation        reads all rows of one worker
    journal           the journal of one shard, and whether any of it was lost
    lookup            looks a prompt up in the store itself
    remote_workers    what is known of other replicas' workers
"""

from __future__ import annotations

from store.read.follower import Follower
from store.read.generation import Rows, read_rows
from store.read.lookup import Lookup, LookupResult
from store.read.remote_workers import RemoteWorker, RemoteWorkers

__all__ = [
    "Follower",
    "Lookup",
    "LookupResult",
    "RemoteWorker",
    "RemoteWorkers",
    "Rows",
    "read_rows",
]
