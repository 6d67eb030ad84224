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
from store.cleaning import Cleaner
from store.copy import Copy, Followed
from store.errors import StoreError
from store.flush import Written
from store.identity import name_of, new_identity
from store.layout import VERSION, Layout
from store.lookup import Found, Lookup
from store.records import Claim, Standing, State, packed, unpacked
from store.rendezvous import chosen
from store.retirement import older_versions, retire
from store.server import Server
from store.store import Store
from store.succession import Succession, Taken
from store.writer import Writer

__all__ = [
    "VERSION",
    "AddressError",
    "Claim",
    "Cleaner",
    "Copy",
    "Followed",
    "Found",
    "Layout",
    "Lookup",
    "Server",
    "Standing",
    "State",
    "Store",
    "StoreAddress",
    "StoreError",
    "Succession",
    "Taken",
    "Writer",
    "Written",
    "chosen",
    "name_of",
    "new_identity",
    "older_versions",
    "packed",
    "parse_address",
    "retire",
    "unpacked",
]
