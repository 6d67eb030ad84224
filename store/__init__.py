"""The index as several replicas share it, in Redis or Valkey: one server or a cluster.

`layout` has the keys, and `store` is where to begin to read.

    address        where the store is, parsed from a URL
    errors         the error of the store, and how often it was met
    exchange       what replicas tell each other besides
    garbage        deletes what no replica needs any more
    identity       how a replica is named in the store
    layout         the keys of the store
    lua/           the scripts: one atomic operation a file
    old_layouts    removes what older versions left behind
    ownership      acquires and releases workers
    read           other replicas' workers and prompts, as read from the store
    records        the values of the store, packed and checked
    rendezvous     which replica is responsible for something
    scripts        the arguments of the scripts in lua/
    server         calls the server or cluster
    store          what replicas ask of the store
    write          this replica's workers, as written to the store
"""

from __future__ import annotations

from store.address import AddressError, StoreAddress, parse_address
from store.errors import Failures, StoreError, decoding, newest_failure
from store.exchange import LeavingReplicas, Registrations, RoutingJournal
from store.garbage import GarbageCollector
from store.identity import new_replica_id, replica_name
from store.layout import VERSION, Layout, worker_name
from store.old_layouts import older_versions, remove_layout
from store.ownership import Takeover, WorkerOwnership
from store.read import Follower, Lookup, LookupResult, RemoteWorker
from store.records import (
    ForwardedOutcome,
    ForwardedRouting,
    HandoverState,
    RoutingEntry,
    RoutingMessage,
    SharedDecision,
    WorkerRecord,
    pack,
)
from store.rendezvous import rendezvous_owner
from store.server import Server
from store.store import Acquired, HeldBy, Store
from store.write import OwnedWorker, Streams, Writer

__all__ = [
    "VERSION",
    "Acquired",
    "AddressError",
    "Failures",
    "Follower",
    "ForwardedOutcome",
    "ForwardedRouting",
    "GarbageCollector",
    "HandoverState",
    "HeldBy",
    "Layout",
    "LeavingReplicas",
    "Lookup",
    "LookupResult",
    "OwnedWorker",
    "Registrations",
    "RemoteWorker",
    "RoutingEntry",
    "RoutingJournal",
    "RoutingMessage",
    "Server",
    "SharedDecision",
    "Store",
    "StoreAddress",
    "StoreError",
    "Streams",
    "Takeover",
    "WorkerOwnership",
    "WorkerRecord",
    "Writer",
    "decoding",
    "new_replica_id",
    "newest_failure",
    "older_versions",
    "pack",
    "parse_address",
    "remove_layout",
    "rendezvous_owner",
    "replica_name",
    "worker_name",
]
