"""What replicas tell each other, besides their workers and blocks.

leaving          the live replicas that are about to release their workers
registrations    the pods that were registered at any replica
routing_journal  where requests were sent
"""

from store.exchange.leaving import LeavingReplicas
from store.exchange.registrations import Registrations
from store.exchange.routing_journal import RoutingJournal

__all__ = ["LeavingReplicas", "Registrations", "RoutingJournal"]
