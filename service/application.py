"""The composition root: makes and wires everything, and takes it down in a written order."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Self

import structlog
from kvatlas.compat.indexer_pb2 import DESCRIPTOR as LLMD_INDEXER
from kvatlas.compat.tokenization_pb2 import DESCRIPTOR as LLMD_TOKENIZATION
from kvatlas.v1.fleet_pb2 import DESCRIPTOR as FLEET
from kvatlas.v1.scoring_pb2 import DESCRIPTOR as SCORING
from kvatlas.v1.tokenization_pb2 import DESCRIPTOR as TOKENIZATION
from prometheus_client import CollectorRegistry

from service.assembly import (
    make_listener,
    make_replicated_index,
    make_scheme,
    make_snapshots,
    make_tokenizers,
    restore_index,
    warn_if_uncompiled,
)
from service.diagnostics import Diagnostics, UnmatchedPrompts
from service.heap import sweep_index, trim_heap
from service.listening import GrpcServer, ListenError, ListenerSettings
from service.loops import Loops
from service.metrics import (
    AnswerMetrics,
    CallMetrics,
    EventLagCollector,
    ListenerRefusals,
    LoopCollector,
    MetricsServer,
    RecordingCollector,
    StateCollector,
    TokenizationCollector,
    register_process,
)
from service.replication import SharedReplica, StandaloneReplica
from service.rpc import (
    CallBounds,
    FleetServicer,
    LlmdIndexerServicer,
    LlmdTokenizationServicer,
    PromptReader,
    Scorer,
    ScoringServicer,
    TokenizationServicer,
    add_service,
)
from store import Server, Store

if TYPE_CHECKING:
    from indexer import MemoryIndex
    from service.config import Configuration
    from service.replication import Replica
    from service.snapshot import Snapshots

_log = structlog.get_logger("kvatlas.service")

_CACHED_SCHEMES = 4096  # models; their names come off the wire
_ADMIN_REQUEST_BYTES = 64 * 1024
_BYTES_PER_TOKEN_ID = 5  # a varint of 32 bits, the widest form of a token id


class Application:
    """The running service, within an `async with` block."""

    index: MemoryIndex

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._scheme_of = lru_cache(_CACHED_SCHEMES)(partial(make_scheme, configuration))
        self.loops = Loops()
        self.addresses: list[str] = []
        """Where scores are asked for, with the port chosen where 0 was asked for."""
        self.admin_addresses: list[str] = []
        """Where the fleet is administered, likewise."""
        self.endpoints: list[str] = []
        """Where events come from, likewise."""
        self.metrics_port: int | None = None
        self.serving = False
        """Whether calls are answered, as `/healthz` says."""
        self._started = False

    async def __aenter__(self) -> Self:
        """What was begun is undone if it cannot start.

        Raises ListenError, SubscribeError, SnapshotError, StoreError, TokenizationError.
        """
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def until_a_listener_dies(self) -> None:
        """Wait for what should not happen. Raises ListenerDiedError."""
        servers = [server for server in (self._scoring, self._admin) if server.addresses]
        await asyncio.gather(*(server.until_it_dies() for server in servers))

    async def become_lame_duck(self) -> None:
        """Answer as before but say NOT_SERVING, for as long as load balancers need to notice.

        The administration ends meanwhile: nobody balances its load.
        """
        seconds = self._configuration.grpc.lame_duck_seconds
        _log.info("lame_duck", seconds=seconds)
        self.serving = False
        self._scoring.become_lame_duck()
        await asyncio.gather(self._admin.stop(), asyncio.sleep(seconds))

    async def __aexit__(self, *exc_info: object) -> None:
        """Not serving, drain calls, stop subscribers, write the snapshot, then everything else."""
        _log.info("stopping")
        self.serving = False
        self._scoring.become_lame_duck()
        await self._stack.aclose()
        _log.info("stopped")

    async def _start(self, stack: AsyncExitStack) -> None:
        configuration = self._configuration
        warn_if_uncompiled()
        await stack.enter_async_context(self.loops)
        if configuration.store.url:
            replica, snapshots = await self._shared_replica(stack), None
        else:
            replica, snapshots = self._standalone_replica()
        self.replica: Replica = replica
        self.snapshots: Snapshots | None = snapshots
        self.listener = replica.listener
        self.tokenizers = await stack.enter_async_context(make_tokenizers(configuration))
        await self._load_tokenizers()
        unmatched = UnmatchedPrompts()
        diagnostics = Diagnostics(
            self.index, replica.workers, unmatched, configuration.index.tier_weights
        )
        registry = self._registry(diagnostics)
        if configuration.metrics.listen:
            await self._serve_metrics(stack, registry)
        if snapshots is not None:
            stack.push_async_callback(self._write_last, snapshots)
        await stack.enter_async_context(replica)
        self.endpoints = self.listener.endpoints
        self.loops.start("sweep", partial(sweep_index, self.index))
        stack.push_async_callback(self.loops.stop, "sweep")
        self.loops.start("heap", trim_heap)
        stack.push_async_callback(self.loops.stop, "heap")
        self.loops.start("diagnostics", diagnostics.run)
        stack.push_async_callback(self.loops.stop, "diagnostics")
        if snapshots is not None:
            await stack.enter_async_context(snapshots)
        self._make_servers(registry, diagnostics, unmatched)
        await self._serve(stack)
        self._started = True

    async def _load_tokenizers(self) -> None:
        for model in self._configuration.models:
            if model.tokenizer is not None:
                await self.tokenizers.load(model.name)

    def _registry(self, diagnostics: Diagnostics) -> CollectorRegistry:
        registry = CollectorRegistry()
        register_process(registry)
        for collector in (
            StateCollector(
                self.index,
                self.listener.router,
                diagnostics,
                self.snapshots,
                self._configuration.metrics.ranks,
            ),
            TokenizationCollector(self.tokenizers),
            EventLagCollector(self.listener.router.lag),
            LoopCollector(self.loops),
            RecordingCollector(self.listener),
            *self.replica.collectors(),
        ):
            registry.register(collector)
        return registry

    # Alone, or one of several

    def _standalone_replica(self) -> tuple[Replica, Snapshots | None]:
        configuration, restored = self._configuration, restore_index(self._configuration)
        index = self.index = restored.index
        index.table.ranks.pod_share = configuration.index.pod_share
        listener_of = partial(make_listener, configuration, self._scheme_of, index)
        replica = StandaloneReplica(index, partial(listener_of, restored.streams))
        written_at = restored.written_at
        return replica, make_snapshots(configuration, index, replica.listener, written_at)

    async def _shared_replica(self, stack: AsyncExitStack) -> Replica:
        configuration, section = self._configuration, self._configuration.store
        index = self.index = make_replicated_index(configuration)
        index.table.ranks.pod_share = configuration.index.pod_share
        server = await stack.enter_async_context(Server(section.address))
        return SharedReplica(
            Store(server, section.namespace),
            index,
            section,
            partial(make_listener, configuration, self._scheme_of, index, []),
            self.loops,
            lambda model: self._scheme_of(model).name,
            configuration.index.tier_weights,
            configuration.events.stale_seconds,
        )

    async def _write_last(self, snapshots: Snapshots) -> None:
        if self._started:  # else what is on disk is as good, and may be another instance's
            await snapshots.write()

    async def _serve_metrics(self, stack: AsyncExitStack, registry: CollectorRegistry) -> None:
        section = self._configuration.metrics
        listen = section.listen
        server = MetricsServer(
            registry, listen, section.connections, section.idle_seconds, lambda: self.serving
        )
        try:
            await stack.enter_async_context(server)
        except OSError as error:
            raise ListenError(f"metrics.listen: cannot bind {listen}: {error}") from error
        self.metrics_port = server.port

    def _make_servers(
        self, registry: CollectorRegistry, diagnostics: Diagnostics, unmatched: UnmatchedPrompts
    ) -> None:
        """Divide the services among two listeners: for those who ask, and those who operate."""
        calls, refused = CallMetrics(registry), ListenerRefusals(registry)
        limits, section = self._configuration.limits, self._configuration.grpc
        bounds, arriving = CallBounds(limits, calls), limits.concurrent_bytes
        longest = max(_BYTES_PER_TOKEN_ID * limits.prompt_tokens, limits.text_bytes) + 1024**2
        prompts = PromptReader(self.tokenizers, limits)
        models = [model.name for model in self._configuration.models]
        scorer = Scorer(
            *(self.index, self.replica, prompts, self._scheme_of, models, unmatched),
            AnswerMetrics(registry),
        )
        self._scoring = GrpcServer(
            ListenerSettings(
                *("grpc", section, section, longest, arriving), *refused.counters("grpc")
            )
        )
        for file, servicer in (
            (SCORING, ScoringServicer(scorer, bounds)),
            (TOKENIZATION, TokenizationServicer(prompts)),
            (LLMD_TOKENIZATION, LlmdTokenizationServicer(prompts)),
            (LLMD_INDEXER, LlmdIndexerServicer(scorer, bounds)),
        ):
            (service,) = file.services_by_name.values()
            add_service(self._scoring, service, servicer, calls, bounds)
        self._make_admin(calls, refused, diagnostics)

    def _make_admin(
        self, calls: CallMetrics, refused: ListenerRefusals, diagnostics: Diagnostics
    ) -> None:
        limits, section = self._configuration.limits, self._configuration.grpc
        admin, arriving = self._configuration.admin, limits.concurrent_bytes
        self._admin = GrpcServer(
            ListenerSettings(
                *("admin", admin, section, _ADMIN_REQUEST_BYTES, arriving),
                *refused.counters("admin"),
            ),
            may_move=admin.may_move,
        )
        fleet = FleetServicer(self.index, self.replica, diagnostics)
        # Operators are answered while callers have used up their share.
        add_service(
            self._admin,
            FLEET.services_by_name["FleetService"],
            fleet,
            calls,
            CallBounds(limits, calls),
        )
        if not (admin.is_local or admin.knows_its_clients):
            _log.warning(
                "admin_unprotected",
                addresses=admin.listen,
                detail="whoever reaches these addresses can delete pods and record prompts: set "
                "admin.token_file or admin.client_ca_file, or listen on a loopback address",
            )

    async def _serve(self, stack: AsyncExitStack) -> None:
        await stack.enter_async_context(self._scoring)
        if self._configuration.admin.listen:
            await stack.enter_async_context(self._admin)
        self.addresses, self.admin_addresses = self._scoring.addresses, self._admin.addresses
        await self.replica.wait_until_ready()
        for server in (self._scoring, self._admin):
            server.become_ready()
        self.serving = True
        _log.info(
            "serving",
            addresses=self.addresses,
            admin_addresses=self.admin_addresses,
            metrics_port=self.metrics_port,
        )
