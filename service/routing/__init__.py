"""Where requests were sent, and what came of it: handles, speculative blocks, outcomes.

In path order:

    routing      a scored prompt -> its handle -> a recorded routing -> an outcome
    handles      the scored prompts whose routing may be recorded
    decisions    the recorded routings, whose blocks are speculative for a while
    prefix_tree  the prompts of these routings, by block keys
    outcomes     what was promised for routed requests, and what engines delivered
    exchange     tells other replicas, and hears of theirs
    errors       why a routing or an outcome is refused
"""

from __future__ import annotations

from service.routing.decisions import Decisions, SpeculativeBlocks
from service.routing.errors import (
    HandleUnknownError,
    NotRoutedError,
    OutcomeError,
    PodAmbiguousError,
    RoutingError,
    SpeculationFullError,
    UnknownRankError,
)
from service.routing.exchange import NoPeers, RoutingExchange, RoutingPeers, share_routing
from service.routing.handles import Handles, Promise, Promises, ScoredKeys, instance_of
from service.routing.outcomes import DeliveredTokens, OutcomeLimits, Outcomes
from service.routing.routing import (
    CountedOutcome,
    RecordedRouting,
    Routing,
    RoutingLimits,
    tidy_routing,
)

__all__ = [
    "CountedOutcome",
    "Decisions",
    "DeliveredTokens",
    "HandleUnknownError",
    "Handles",
    "NoPeers",
    "NotRoutedError",
    "OutcomeError",
    "OutcomeLimits",
    "Outcomes",
    "PodAmbiguousError",
    "Promise",
    "Promises",
    "RecordedRouting",
    "Routing",
    "RoutingError",
    "RoutingExchange",
    "RoutingLimits",
    "RoutingPeers",
    "ScoredKeys",
    "SpeculationFullError",
    "SpeculativeBlocks",
    "UnknownRankError",
    "instance_of",
    "share_routing",
    "tidy_routing",
]
