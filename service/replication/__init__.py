"""This process among the replicas that share its index: the only one, or one of several.

`replica` is the protocol; the composition root chooses between its two implementations.

    handover              which replica applies whose events
    housekeeping          when garbage is collected, and by whom
    membership            which replicas are live
    replica               what the service asks of its replica; one that is the only one
    reports               what replicas report of their workers to each other
    shared                a replica that shares its index through the store
    store_failures        counts failures of the store
    store_lookup          answers prompts from the copy or the store
    worker_status         what is known of each worker
    writer_streams        what the writer asks about event streams
"""

from __future__ import annotations

from service.replication.replica import (
    ListenerFactory,
    PromptMatch,
    Replica,
    ReplicationStatus,
    StandaloneReplica,
)
from service.replication.shared import SharedReplica
from service.replication.worker_status import LocalWorkers, Workers

__all__ = [
    "ListenerFactory",
    "LocalWorkers",
    "PromptMatch",
    "Replica",
    "ReplicationStatus",
    "SharedReplica",
    "StandaloneReplica",
    "Workers",
]
