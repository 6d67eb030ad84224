"""The index as several replicas share it: Redis or Valkey, one server or a cluster.

`address` where the store is, `server` one call of it over `lua/`, `layout` what it keeps under
which name, `records` the forms in which, `store` what can be asked of it; `writer` this replica's
workers go there, `flush` one such write, `copy` the others' come from there, `lookup` a prompt is
asked of it without a copy, `succession` workers change hands, `cleaning` what nobody needs any more
is dropped, `retirement` what older versions had, `identity` who a replica is, `rendezvous` who of
several does something; `errors` what goes wrong.
"""

from __future__ import annotations

from store.address import AddressError, StoreAddress, parse_address
from store.errors import StoreError
from store.garbage import GarbageCollector
from store.identity import new_replica_id, replica_name
from store.layout import VERSION, Layout
from store.old_layouts import older_versions, remove_layout
from store.ownership import Takeover, WorkerOwnership
from store.read import Follower, Lookup, LookupResult, RemoteWorker
from store.records import HandoverState, WorkerRecord, pack, unpack
from store.rendezvous import rendezvous_owner
from store.server import Server
from store.store import Store
from store.write import OwnedWorker, Writer

__all__ = [
    "VERSION",
    "AddressError",
    "Follower",
    "GarbageCollector",
    "HandoverState",
    "Layout",
    "Lookup",
    "LookupResult",
    "OwnedWorker",
    "RemoteWorker",
    "Server",
    "Store",
    "StoreAddress",
    "StoreError",
    "Takeover",
    "WorkerOwnership",
    "WorkerRecord",
    "Writer",
    "new_replica_id",
    "older_versions",
    "pack",
    "parse_address",
    "remove_layout",
    "rendezvous_owner",
    "replica_name",
    "unpack",
]
