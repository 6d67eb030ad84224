"""gRPC: what the service is asked, and what it answers. Protobuf messages go no further than here.

In path order:

    handlers        registers a servicer's methods; measures calls and turns errors into statuses
    scoring         ScoringService: prompts -> scores of pods
    routing         RoutingService: where requests were sent, and what came of it
    tokenization    TokenizationService: prompts -> token ids
    explain         ExplainService: scores and blocks, explained
    fleet           FleetService: what is known about each pod, and what an operator may do to it
    discovery       DiscoveryService: the discovered pods, and registering some
    llmd            the services of llm-d-kv-cache, under their own names
    exchange        the messages of a call that both sides send
    prompts         requests -> prompts -> tokens, within the limits
    model_names     what the names that callers give models stand for
    trust_states    trust states of the index -> those of the protocol
    near_names      names in the texts of errors
    bounds          what one caller may take
    errors          the faults of a request, and the status of every error
    reflection      server reflection, for grpcurl and the like
"""

from __future__ import annotations

from service.rpc.bounds import CallBounds
from service.rpc.discovery import DiscoveryServicer
from service.rpc.explain import ExplainRoom, ExplainServicer, ExplainSources
from service.rpc.fleet import FleetServicer
from service.rpc.handlers import add_service
from service.rpc.llmd import LlmdIndexerServicer, LlmdTokenizationServicer
from service.rpc.model_names import ModelNames
from service.rpc.prompts import PromptReader
from service.rpc.reflection import enable_reflection
from service.rpc.routing import RoutingRecorder, RoutingServicer
from service.rpc.scoring import ModelWeights, Scorer, ScoringServicer
from service.rpc.tokenization import TokenizationServicer

__all__ = [
    "CallBounds",
    "DiscoveryServicer",
    "ExplainRoom",
    "ExplainServicer",
    "ExplainSources",
    "FleetServicer",
    "LlmdIndexerServicer",
    "LlmdTokenizationServicer",
    "ModelNames",
    "ModelWeights",
    "PromptReader",
    "RoutingRecorder",
    "RoutingServicer",
    "Scorer",
    "ScoringServicer",
    "TokenizationServicer",
    "add_service",
    "enable_reflection",
]
