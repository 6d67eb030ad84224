"""Which replica applies whose events, and how workers change hands without losing any.

assignment            which replica listens to which source
leaving               hands workers over while calls are still answered
ownership_requests    the workers that this replica wants to own
takeover              acquires the workers that are wanted
waiting               tells owners that this replica keeps frames, and hears who keeps theirs
"""

from __future__ import annotations

from service.replication.handover.assignment import SourceAssignment
from service.replication.handover.leaving import Leaving
from service.replication.handover.ownership_requests import OwnershipRequests
from service.replication.handover.takeover import TakeoverLoop
from service.replication.handover.waiting import WaitingOwners

__all__ = ["Leaving", "OwnershipRequests", "SourceAssignment", "TakeoverLoop", "WaitingOwners"]
