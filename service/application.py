"""The composition root: makes and wires everything, and takes it down in a written order."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Self

import structlog
from prometheus_client import CollectorRegistry

from service.assembly import (
    make_fleet,
    make_listener,
    make_replicated_index,
    make_routing,
    make_scheme,
    make_snapshots,
    make_tokenizers,
    restore_index,
    warn_if_uncompiled,
)
from service.diagnostics import Diagnostics, UnmatchedPrompts
from service.discovery import MemoryRegistry
from service.heap import sweep_index, trim_heap
from service.listening import ListenError
from service.loops import Loops
from service.metrics import (
    EventLagCollector,
    LoopCollector,
    MetricsServer,
    RecordingCollector,
    RoutingCollector,
    StateCollector,
    TokenizationCollector,
    register_process,
)
from service.replication import SharedReplica, StandaloneReplica
from service.routing import tidy_routing
from service.servers import Served, Servers
from store import Registrations, Server, Store

if TYPE_CHECKING:
    from indexer import MemoryIndex
    from service.config import Configuration
    from service.discovery import Registry
    from service.loops import Loop
    from service.processes import Told
    from service.replication import Replica
    from service.routing import Routing
    from service.snapshot import Snapshots
    from service.tracing import CallTracer

_log = structlog.get_logger("kvatlas.service")

_CACHED_SCHEMES = 4096  # models; their names come off the wire


class Application:
    """The running service, within an `async with` block.

    Args:
        configuration: of this process.
        told: by the supervisor, if this is one of several processes.
    """

    index: MemoryIndex

    def __init__(self, configuration: Configuration, told: Told | None = None) -> None:
        self._configuration = configuration
        self._restarts = 0 if told is None else told.restarts
        self._handed = {} if told is None else told.connections()
        self._scheme_of = lru_cache(_CACHED_SCHEMES)(partial(make_scheme, configuration))
        self.loops = Loops()
        self.addresses: list[str] = []
        """Where scores are asked for, with the port chosen where 0 was asked for."""
        self.admin_addresses: list[str] = []
        """Where the fleet is administered, likewise."""
        self.endpoints: list[str] = []
        """Where events come from, likewise."""
        self.metrics_port: int | None = None
        self._registry: Registry = MemoryRegistry()
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
        await self._servers.until_one_dies()

    async def until_supervisor_is_lost(self) -> None:
        """Wait until the process that accepts connections has gone; for ever if there is none."""
        for handed in self._handed.values():
            await handed.until_lost()
            return
        await asyncio.get_running_loop().create_future()

    async def become_lame_duck(self) -> None:
        """Answer as before but say NOT_SERVING, for as long as load balancers need to notice.

        The administration ends meanwhile: nobody balances its load.
        """
        seconds = self._configuration.grpc.lame_duck_seconds
        _log.info("lame_duck", seconds=seconds)
        self.serving = False
        self._servers.become_lame_duck()
        leaving = (self._servers.stop_admin(), self.replica.begin_leaving())
        await asyncio.gather(*leaving, asyncio.sleep(seconds))

    async def __aexit__(self, *exc_info: object) -> None:
        """Not serving, drain calls, stop subscribers, write the snapshot, then everything else."""
        _log.info("stopping")
        self.serving = False
        self._servers.become_lame_duck()
        await self._stack.aclose()
        _log.info("stopped")

    async def _start(self, stack: AsyncExitStack) -> None:
        configuration = self._configuration
        warn_if_uncompiled()
        await stack.enter_async_context(self.loops)
        replica, snapshots = await self._make_replica(stack)
        self.tokenizers = await stack.enter_async_context(make_tokenizers(configuration))
        await self._load_tokenizers()
        unmatched = UnmatchedPrompts()
        self.fleet = make_fleet(
            *(configuration, self.loops, self.listener, replica.forget_gone_pod),
            *(self._registry, self.tokenizers.note_origin),
        )
        diagnostics = Diagnostics(
            *(self.index, replica.workers, unmatched),
            *(configuration.index.tier_weights, self.fleet.findings),
        )
        routing = make_routing(configuration, self.index, replica.on_under_delivery)
        registry = self._metrics(diagnostics, routing)
        tracer = await self._start_tracer(stack, registry)
        if configuration.metrics.listen:
            await self._serve_metrics(stack, registry)
        if snapshots is not None:
            stack.push_async_callback(self._write_last, snapshots)
        await self._listen(stack)
        self._start_loops(stack, diagnostics, routing)
        if snapshots is not None:
            await stack.enter_async_context(snapshots)
        served = Served(
            *(self.index, replica, self.tokenizers, self._scheme_of, diagnostics, unmatched),
            *(routing, self.fleet, tracer),
        )
        self._servers = Servers(configuration, served, registry, self._handed)
        await self._serve(stack)
        self._started = True

    async def _listen(self, stack: AsyncExitStack) -> None:
        """Discover pods, and listen to all sources."""
        stack.push_async_callback(self.fleet.stop)
        await self.fleet.start()  # first: streams of a snapshot go on if their sources are known
        await stack.enter_async_context(self.replica)
        stack.push_async_callback(self.fleet.stop)  # before the listener stops
        if self.listener.router.ownership.owns_everything:
            self.fleet.on_listening()
        self.endpoints = self.listener.endpoints

    def _start_loops(
        self, stack: AsyncExitStack, diagnostics: Diagnostics, routing: Routing
    ) -> None:
        loops: dict[str, Loop] = {
            "sweep": partial(sweep_index, self.index),
            "heap": trim_heap,
            "diagnostics": diagnostics.run,
            "routing": partial(tidy_routing, routing),
            **self.replica.share_routing(routing),
        }
        for name, loop in loops.items():
            self.loops.start(name, loop)
            stack.push_async_callback(self.loops.stop, name)

    async def _load_tokenizers(self) -> None:
        for model in self._configuration.models:
            if model.tokenizer is not None:
                await self.tokenizers.load(model.name)

    async def _start_tracer(
        self, stack: AsyncExitStack, registry: CollectorRegistry
    ) -> CallTracer | None:
        section = self._configuration.traces
        if not section.endpoint:
            return None
        from service.tracing import CallTracer  # OpenTelemetry need not be installed

        tracer = await stack.enter_async_context(CallTracer(section))
        registry.register(tracer.metrics)
        return tracer

    def _metrics(self, diagnostics: Diagnostics, routing: Routing) -> CollectorRegistry:
        registry, configuration = CollectorRegistry(), self._configuration
        register_process(registry, configuration.processes, self._restarts)
        for collector in (
            StateCollector(
                self.index,
                self.listener.router,
                diagnostics,
                self.snapshots,
                configuration.metrics.ranks,
            ),
            TokenizationCollector(self.tokenizers),
            EventLagCollector(self.listener.router.lag),
            LoopCollector(self.loops),
            RecordingCollector(self.listener),
            *self.fleet.collectors(),
            RoutingCollector(routing, self._configuration.metrics.ranks),
            *self.replica.collectors(),
        ):
            registry.register(collector)
        return registry

    # Alone, or one of several

    async def _make_replica(self, stack: AsyncExitStack) -> tuple[Replica, Snapshots | None]:
        self.replica: Replica
        self.snapshots: Snapshots | None
        if self._configuration.store.url:
            self.replica, self.snapshots = await self._shared_replica(stack), None
        else:
            self.replica, self.snapshots = self._standalone_replica()
        self.listener = self.replica.listener
        return self.replica, self.snapshots

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
        store = Store(server, section.namespace)
        self._registry = Registrations(store)
        return SharedReplica(
            store,
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

    async def _serve(self, stack: AsyncExitStack) -> None:
        servers = await stack.enter_async_context(self._servers)
        self.addresses, self.admin_addresses = servers.addresses, servers.admin_addresses
        await self.replica.wait_until_ready()
        servers.become_ready()
        self.serving = True
        _log.info(
            "serving",
            addresses=self.addresses,
            admin_addresses=self.admin_addresses,
            metrics_port=self.metrics_port,
        )
