"""Several processes serve as one: a supervisor starts them, and hands them connections.

They share one index through the store, as replicas of a fleet do.

    told            what a process is told by the supervisor, and how that changes its configuration
    entrance        the addresses of one listener, and which process gets the next connection
    child           one process: its start, its end, and when it is started again
    supervisor      all of them, from the start until a signal
    private_store   a Valkey of their own, where no store is configured
"""

from __future__ import annotations

from service.processes.child import StartFailedError
from service.processes.private_store import PrivateStore, PrivateStoreError, store_program
from service.processes.supervisor import Supervisor
from service.processes.told import Told

__all__ = [
    "PrivateStore",
    "PrivateStoreError",
    "StartFailedError",
    "Supervisor",
    "Told",
    "store_program",
]
