"""The composition root: everything is made and wired here, and taken down in a written order."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import cache
from typing import TYPE_CHECKING, Any, Self

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from kvatlas.compat.tokenization_pb2 import DESCRIPTOR as COMPAT
from kvatlas.v1.fleet_pb2 import DESCRIPTOR as FLEET
from kvatlas.v1.scoring_pb2 import DESCRIPTOR as SCORING
from kvatlas.v1.tokenization_pb2 import DESCRIPTOR as TOKENIZATION
from prometheus_client import CollectorRegistry

from indexer import COMPILED, KeyScheme, MemoryIndex, ReplicatedIndex
from kvevents import EventPolicy, Listener, Source
from service.diagnostics import Diagnostics, UnmatchedPrompts
from service.metrics import (
    CallMetrics,
    MetricsServer,
    ReplicationCollector,
    StateCollector,
    TokenizationCollector,
)
from service.replication import LocalWorkers, Replica, StoreLookup
from service.rpc import (
    FleetServicer,
    LlmdTokenizationServicer,
    PromptReader,
    ScoringServicer,
    TokenizationServicer,
    add_service,
    enable_reflection,
)
from service.snapshot import KeySettings, RestoredIndex, SnapshotError, Snapshots, read_snapshot
from store import Server, Store
from tokenization import ModelFiles, TokenizationLimits, Tokenizers

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.config import Configuration
    from service.replication import Workers

_log = structlog.get_logger("kvatlas.service")

_SCORING = SCORING.services_by_name["ScoringService"]
_TOKENIZATION = TOKENIZATION.services_by_name["TokenizationService"]
_COMPAT = COMPAT.services_by_name["TokenizationService"]
_FLEET = FLEET.services_by_name["FleetService"]
_SERVICES = [service.full_name for service in (_SCORING, _TOKENIZATION, _FLEET, _COMPAT)]
_TIDY_SECONDS = 0.05
_BYTES_PER_TOKEN_ID = 5  # a varint of 32 bits, the widest form of a token id


class ListenError(OSError):
    """An address cannot be bound."""


class Application:
    """The running service, within an `async with` block.

    addresses: where gRPC listens, with the port chosen where 0 was asked for.
    endpoints: where events come from, likewise. index, ingest: what they feed.
    tokenizers: of all models.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self.addresses: list[str] = []
        self.endpoints: list[str] = []
        self.metrics_port: int | None = None
        self.snapshots: Snapshots | None = None
        self._started = False

    async def __aenter__(self) -> Self:
        """What was begun is undone if it cannot start.

        Raises ListenError, SubscribeError, SnapshotError, TokenizationError.
        """
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Not serving, drain calls, stop subscribers, write the snapshot, then everything else."""
        _log.info("stopping")
        await self._stack.aclose()
        _log.info("stopped")

    async def _start(self, stack: AsyncExitStack) -> None:
        configuration = self._configuration
        if not COMPILED:
            _log.warning(
                "kernel_uncompiled",
                detail="no C compiler was at hand at installation: scoring and events are many "
                "times slower than they could be",
            )
        restored = self._restored()
        index = self.index = restored.index
        scheme_of = cache(self._scheme)
        replica = self.replica = await self._replica(stack, index, scheme_of)
        intake = self.intake = self._intake(index, scheme_of, restored.streams, replica)
        ingest = self.ingest = intake.router
        workers: Workers = LocalWorkers(ingest.streams)
        shared = None
        if replica is not None:
            replica.listen_with(intake)
            workers, shared = replica.workers, self._shared_answers(replica)
        snapshots = self.snapshots = self._snapshots(restored.written_at)
        tokenizers = self.tokenizers = await stack.enter_async_context(self._tokenizers())
        for model in configuration.models:
            if model.tokenizer is not None:
                await tokenizers.load(model.name)
        registry = CollectorRegistry()
        unmatched = UnmatchedPrompts()
        diagnostics = Diagnostics(index, workers, unmatched, configuration.index.tier_weights)
        registry.register(StateCollector(index, ingest, diagnostics, snapshots))
        if shared is not None:
            registry.register(ReplicationCollector(shared))
        registry.register(TokenizationCollector(tokenizers))
        calls = CallMetrics(registry)
        if configuration.metrics.listen:
            await self._serve_metrics(stack, registry)
        if snapshots is not None:
            stack.push_async_callback(self._write_last, snapshots)
        await stack.enter_async_context(intake)
        if replica is not None:
            await stack.enter_async_context(replica)
        self.endpoints = intake.endpoints
        tidying = asyncio.create_task(_tidy(index), name="tidy")
        stack.push_async_callback(_cancelled, tidying)
        prompts = PromptReader(tokenizers, configuration.limits)
        scoring = ScoringServicer(
            index,
            workers,
            prompts,
            scheme_of,
            [model.name for model in configuration.models],
            unmatched,
            shared,
        )
        fleet = FleetServicer(index, intake, workers, diagnostics, replica)
        await stack.enter_async_context(diagnostics)
        if snapshots is not None:
            await stack.enter_async_context(snapshots)
        await self._serve(stack, scoring, prompts, fleet, calls)
        self._started = True

    def _restored(self) -> RestoredIndex:
        """What the snapshot holds, or an empty index; one that is refused is put aside."""
        section, path = self._configuration.index, self._configuration.snapshot.path
        if path is not None:
            if not path.parent.is_dir():
                raise SnapshotError(f"snapshot.path: there is no directory {path.parent}")
            try:
                restored = read_snapshot(
                    path,
                    self._keys(),
                    section.limit,
                    section.tier_weights,
                    self._configuration.snapshot.oldest_seconds,
                )
            except FileNotFoundError:
                _log.info("no_snapshot", path=str(path))
            except (SnapshotError, OSError) as error:
                aside = path.with_name(path.name + ".refused")
                path.replace(aside)
                _log.error("snapshot_refused", path=str(path), detail=str(error), moved=str(aside))
            else:
                _log.info("snapshot_read", path=str(path), workers=len(restored.streams))
                return restored
        kind = ReplicatedIndex if self._configuration.store.url else MemoryIndex
        index = kind(section.limit, section.tier_weights, section.count_copies)
        return RestoredIndex(index, [], None)

    async def _replica(
        self, stack: AsyncExitStack, index: MemoryIndex, scheme_of: Callable[[str], KeyScheme]
    ) -> Replica | None:
        section = self._configuration.store
        if not isinstance(index, ReplicatedIndex):
            return None
        server = await stack.enter_async_context(Server(section.address))
        store = Store(server, section.namespace)
        stale_after = self._configuration.events.stale_seconds
        return Replica(store, index, section, scheme_of, stale_after)

    def _shared_answers(self, replica: Replica) -> StoreLookup:
        configuration = self._configuration
        return StoreLookup(
            replica,
            configuration.store,
            configuration.index.tier_weights,
            configuration.events.stale_seconds,
        )

    def _keys(self) -> KeySettings:
        section = self._configuration.index
        return KeySettings(
            section.hash_seed, section.count_copies, self._configuration.block_size_of
        )

    def _snapshots(self, written_at: float | None) -> Snapshots | None:
        section = self._configuration.snapshot
        if section.path is None:
            return None
        return Snapshots(
            section.path,
            section.interval_seconds,
            self.index,
            self.intake,
            self._keys(),
            written_at,
        )

    async def _write_last(self, snapshots: Snapshots) -> None:
        if self._started:  # else what is on disk is as good, and may be another instance's
            await snapshots.write()

    def _scheme(self, model: str) -> KeyScheme:
        configuration = self._configuration
        return KeyScheme(model, configuration.block_size_of(model), configuration.index.hash_seed)

    def _tokenizers(self) -> Tokenizers:
        section = self._configuration.tokenization
        configured = {
            model.name: model.tokenizer
            for model in self._configuration.models
            if model.tokenizer is not None
        }
        files = ModelFiles(
            configured, section.aliases, section.directories, section.hub_cache, section.download
        )
        options = {model.name: model.chat.options for model in self._configuration.models}
        limits = TokenizationLimits(section.threads, section.queue, section.cache, section.memory)
        return Tokenizers(files, options, limits)

    async def _serve_metrics(self, stack: AsyncExitStack, registry: CollectorRegistry) -> None:
        listen = self._configuration.metrics.listen
        try:
            server = await stack.enter_async_context(MetricsServer(registry, listen))
        except OSError as error:
            raise ListenError(f"metrics.listen: cannot bind {listen}: {error}") from error
        self.metrics_port = server.port

    def _intake(
        self,
        index: MemoryIndex,
        scheme_of: Callable[[str], KeyScheme],
        restored: list[dict[str, Any]],
        replica: Replica | None,
    ) -> Listener:
        configuration, events = self._configuration, self._configuration.events
        sources = [
            Source(
                **section.model_dump(),
                default_model=configuration.default_model,
                pod_names=configuration.pod_names,
            )
            for section in configuration.sources
        ]
        if not sources:
            _log.warning("no_sources", detail="no source of events is configured")
        policy = EventPolicy(
            count_copies=configuration.index.count_copies,
            forget_on_doubt=events.policy == "forget",
            stale_after=events.stale_seconds,
            departed_after=events.departed_seconds,
            poll_seconds=events.poll_seconds,
            waiting_bytes=events.waiting_limit,
        )
        return Listener(
            index,
            scheme_of,
            sources,
            policy,
            replay_timeout=events.replay_timeout_seconds,
            concurrent_replays=events.concurrent_replays,
            queue_messages=events.queue_messages,
            restored=restored,
            ownership=None if replica is None else replica.assignment,
            on_change=_nothing if replica is None else replica.writer.wake,
            settings_of=configuration.engine_settings_of,
        )

    async def _serve(
        self,
        stack: AsyncExitStack,
        scoring: ScoringServicer,
        prompts: PromptReader,
        fleet: FleetServicer,
        calls: CallMetrics,
    ) -> None:
        limits = self._configuration.limits
        most = max(_BYTES_PER_TOKEN_ID * limits.prompt_tokens, limits.text_bytes) + 1024**2
        server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", min(most, 2**31 - 1)),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
            ),
        )
        add_service(server, _SCORING, scoring, calls)
        add_service(server, _TOKENIZATION, TokenizationServicer(prompts), calls)
        add_service(server, _FLEET, fleet, calls)
        add_service(server, _COMPAT, LlmdTokenizationServicer(prompts), calls)
        healthy = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
        enable_reflection(server, [*_SERVICES, health.SERVICE_NAME])
        for address in self._configuration.grpc.listen:
            self.addresses.append(_bind(server, address))
        await server.start()
        stack.push_async_callback(server.stop, self._configuration.grpc.drain_seconds)
        for name in ("", *_SERVICES):
            await healthy.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        if self.replica is not None:
            await self.replica.ready()
        for name in ("", *_SERVICES):
            await healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
        stack.push_async_callback(healthy.enter_graceful_shutdown)
        _log.info("serving", addresses=self.addresses, metrics_port=self.metrics_port)


def _bind(server: grpc.aio.Server, address: str) -> str:
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise ListenError(f"grpc.listen: cannot bind {address}") from error
    if address.startswith("unix:"):
        return address
    return f"{address.rpartition(':')[0]}:{port}"


def _nothing() -> None:
    """Where nobody is to be told."""


async def _tidy(index: MemoryIndex) -> None:
    """Free what retired holders left behind, a slice at a time, between everything else."""
    while True:
        more = index.sweep()
        await asyncio.sleep(0 if more else _TIDY_SECONDS)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
