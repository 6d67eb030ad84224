"""The two gRPC servers: one for those who ask for scores, one for those who operate the fleet."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import structlog
from kvatlas.compat.indexer_pb2 import DESCRIPTOR as LLMD_INDEXER
from kvatlas.compat.tokenization_pb2 import DESCRIPTOR as LLMD_TOKENIZATION
from kvatlas.v1.discovery_pb2 import DESCRIPTOR as DISCOVERY
from kvatlas.v1.explain_pb2 import DESCRIPTOR as EXPLAIN
from kvatlas.v1.fleet_pb2 import DESCRIPTOR as FLEET
from kvatlas.v1.routing_pb2 import DESCRIPTOR as ROUTING
from kvatlas.v1.scoring_pb2 import DESCRIPTOR as SCORING
from kvatlas.v1.tokenization_pb2 import DESCRIPTOR as TOKENIZATION

from service.explaining import BlockLookups, Explainer
from service.listening import GrpcServer, ListenerSettings
from service.metrics import AnswerMetrics, CallMetrics, ListenerRefusals, MethodCalls
from service.rpc import (
    CallBounds,
    DiscoveryServicer,
    ExplainRoom,
    ExplainServicer,
    ExplainSources,
    FleetServicer,
    LlmdIndexerServicer,
    LlmdTokenizationServicer,
    ModelNames,
    ModelWeights,
    PromptReader,
    RoutingRecorder,
    RoutingServicer,
    Scorer,
    ScoringServicer,
    TokenizationServicer,
    add_service,
)
from service.watching import PodWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.descriptor import FileDescriptor
    from prometheus_client import CollectorRegistry

    from indexer import KeyScheme, MemoryIndex
    from service.accepting import Connections
    from service.config import Configuration
    from service.diagnostics import Diagnostics, UnmatchedPrompts
    from service.discovery import DiscoveredFleet
    from service.replication import Replica
    from service.routing import Routing
    from service.tracing import CallTracer
    from tokenization import Tokenizers

_log = structlog.get_logger("kvatlas.service")

_BYTES_PER_TOKEN_ID = 5  # a varint of 32 bits, the widest form of a token id


@dataclass(frozen=True, slots=True)
class Served:
    """What calls are answered from."""

    index: MemoryIndex
    replica: Replica
    tokenizers: Tokenizers
    scheme_of: Callable[[str], KeyScheme]
    """The block keys of a model."""
    diagnostics: Diagnostics
    unmatched: UnmatchedPrompts
    routing: Routing
    fleet: DiscoveredFleet
    tracer: CallTracer | None = None
    """If calls are traced."""


class Servers:
    """Listens within an `async with` block, and is ready once it is told so."""

    def __init__(
        self,
        configuration: Configuration,
        served: Served,
        registry: CollectorRegistry,
        handed: Mapping[str, Connections],
    ) -> None:
        """Prepare to listen.

        Args:
            configuration: says where, and for whom.
            served: what calls are answered from.
            registry: where calls and answers are counted.
            handed: connections of a listener, by name, that another process accepts.
        """
        self._handed = handed
        self._configuration = configuration
        self._served = served
        tracer = served.tracer
        make_prompts = PromptReader if tracer is None else tracer.prompt_reader
        make_scorer = Scorer if tracer is None else tracer.scorer
        self._calls = CallMetrics(registry, MethodCalls if tracer is None else tracer.counting)
        refused = ListenerRefusals(registry)
        names = self._model_names()
        prompts = make_prompts(served.tokenizers, configuration.limits, names)
        scorer = make_scorer(
            *(served.index, served.replica, prompts, served.scheme_of, self._model_weights()),
            *(served.unmatched, AnswerMetrics(registry), served.routing, names),
        )
        explain = self._explain_sources(scorer, prompts)
        self._scoring = self._make_scoring(refused, scorer, prompts, explain)
        self._admin = self._make_admin(refused, explain)

    def _model_names(self) -> ModelNames:
        configured = frozenset(model.name for model in self._configuration.models)
        index = self._served.index
        return ModelNames(
            self._served.fleet.served_names,
            lambda name: name in configured or bool(index.pods_of(name)),
        )

    def _explain_sources(self, scorer: Scorer, prompts: PromptReader) -> ExplainSources:
        served = self._served
        speculative_of = served.routing.decisions.match
        return ExplainSources(
            *(served.replica, scorer, prompts, served.scheme_of, served.diagnostics),
            Explainer(served.index, served.replica, served.scheme_of, speculative_of),
            BlockLookups(served.index, served.replica),
            ExplainRoom(),
        )

    @property
    def _longest(self) -> int:
        """The bytes of the longest request."""
        limits = self._configuration.limits
        return max(_BYTES_PER_TOKEN_ID * limits.prompt_tokens, limits.text_bytes) + 1024**2

    def _make_scoring(
        self,
        refused: ListenerRefusals,
        scorer: Scorer,
        prompts: PromptReader,
        explain: ExplainSources,
    ) -> GrpcServer:
        limits, section = self._configuration.limits, self._configuration.grpc
        server = GrpcServer(
            ListenerSettings(
                *("grpc", section, section, self._longest, limits.concurrent_bytes),
                *refused.counters("grpc"),
                self._handed.get("grpc"),
            )
        )
        served, bounds = self._served, CallBounds(limits, self._calls)
        recorder = RoutingRecorder(served.routing, self._configuration.routing, limits)
        for file, servicer in (
            (SCORING, ScoringServicer(scorer, recorder, bounds)),
            (EXPLAIN, ExplainServicer(explain, bounds, tries_salts=section.is_restricted)),
            (ROUTING, RoutingServicer(recorder, bounds)),
            (TOKENIZATION, TokenizationServicer(prompts)),
            (LLMD_TOKENIZATION, LlmdTokenizationServicer(prompts)),
            (LLMD_INDEXER, LlmdIndexerServicer(scorer, bounds)),
        ):
            self._add(server, file, servicer, bounds)
        return server

    def _model_weights(self) -> ModelWeights:
        return ModelWeights(
            {model.name: model.tier_weights for model in self._configuration.models},
            self._configuration.routing.speculative_weight,
        )

    def _make_admin(self, refused: ListenerRefusals, explain: ExplainSources) -> GrpcServer:
        limits, section = self._configuration.limits, self._configuration.admin
        server = GrpcServer(
            ListenerSettings(
                *("admin", section, self._configuration.grpc),
                *(self._longest, limits.concurrent_bytes),
                *refused.counters("admin"),
                self._handed.get("admin"),
            ),
            may_move=section.may_move,
        )
        # Operators are answered while callers have used up their share.
        bounds = CallBounds(limits, self._calls)
        served = self._served
        fleet = FleetServicer(
            *(served.index, served.replica, served.diagnostics, served.routing.outcomes),
            PodWatch(served.replica),
        )
        self._add(server, FLEET, fleet, bounds)
        self._add(server, EXPLAIN, ExplainServicer(explain, bounds, tries_salts=True), bounds)
        discovery = DiscoveryServicer(served.fleet, served.fleet.registered)
        self._add(server, DISCOVERY, discovery, bounds)
        if not section.is_restricted:
            _log.warning(
                "admin_unprotected",
                addresses=section.listen,
                detail="whoever reaches these addresses can delete pods and record prompts: set "
                "admin.token_file or admin.client_ca_file, or listen on a loopback address",
            )
        return server

    def _add(
        self, server: GrpcServer, file: FileDescriptor, servicer: object, bounds: CallBounds
    ) -> None:
        """Serve the service that `file` declares."""
        (service,) = file.services_by_name.values()
        add_service(server, service, servicer, self._calls, bounds)

    @property
    def addresses(self) -> list[str]:
        """Where scores are asked for, with the port chosen where 0 was asked for."""
        return self._scoring.addresses

    @property
    def admin_addresses(self) -> list[str]:
        """Where the fleet is administered, likewise."""
        return self._admin.addresses

    async def __aenter__(self) -> Self:
        """Raises ListenError."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._scoring)
            if self._configuration.admin.listen:
                await stack.enter_async_context(self._admin)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    def become_ready(self) -> None:
        """Say SERVING from now on."""
        self._scoring.become_ready()
        self._admin.become_ready()

    def become_lame_duck(self) -> None:
        """Answer as before but say NOT_SERVING."""
        self._scoring.become_lame_duck()

    async def stop_admin(self) -> None:
        """End the administration, whose load nobody balances."""
        await self._admin.stop()

    async def until_one_dies(self) -> None:
        """Wait for what should not happen. Raises ListenerDiedError."""
        servers = [server for server in (self._scoring, self._admin) if server.addresses]
        await asyncio.gather(*(server.until_it_dies() for server in servers))
