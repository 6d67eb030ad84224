"""TODO map."""

from __future__ import annotations

from service.replication.replica import Replica
from service.replication.store_lookup import StoreAnswer, StoreLookup
from service.replication.worker_status import LocalWorkers, Workers

__all__ = [
    "LocalWorkers",
    "Replica",
    "StoreAnswer",
    "StoreLookup",
    "Workers",
]
