"""What replicas tell each other, besides their workers and blocks.

registrations    the pods that were registered at any replica
routing_journal  where requests were sent
"""

from store.exchange.registrations import Registrations
from store.exchange.routing_journal import RoutingJournal

__all__ = ["Registrations", "RoutingJournal"]
