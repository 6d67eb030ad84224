"""The composition root: everything is made and wired here, and taken down in a written order."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import cache
from typing import TYPE_CHECKING, Self

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from kvatlas.v1.fleet_pb2 import DESCRIPTOR as FLEET
from kvatlas.v1.scoring_pb2 import DESCRIPTOR as SCORING
from kvatlas.v1.tokenization_pb2 import DESCRIPTOR as TOKENIZATION
from prometheus_client import CollectorRegistry

from indexer import COMPILED, KeyScheme, MemoryIndex
from kvevents import IngestPolicy, Intake, Source
from service.calls import add_service
from service.fleet import FleetServicer
from service.metrics import CallMetrics, MetricsServer, StateCollector
from service.prompts import Prompts
from service.reflection import enable_reflection
from service.scoring import ScoringServicer
from service.tokenizing import TokenizationServicer
from tokenization import Tokenizers

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.configuration import Configuration

_log = structlog.get_logger("kvatlas.service")

_SCORING = SCORING.services_by_name["ScoringService"]
_TOKENIZATION = TOKENIZATION.services_by_name["TokenizationService"]
_FLEET = FLEET.services_by_name["FleetService"]
_SERVICES = [service.full_name for service in (_SCORING, _TOKENIZATION, _FLEET)]
_TIDY_SECONDS = 0.05
_BYTES_PER_TOKEN_ID = 5  # a varint of 32 bits, the widest form of a token id


class ListenError(OSError):
    """An address cannot be bound."""


class Application:
    """The running service, within an `async with` block.

    addresses: where gRPC listens, with the port chosen where 0 was asked for.
    endpoints: where events come from, likewise. index, ingest: what they feed.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self.addresses: list[str] = []
        self.endpoints: list[str] = []
        self.metrics_port: int | None = None

    async def __aenter__(self) -> Self:
        """Raises ListenError, SubscribeError, TokenizationError; what was begun is undone then."""
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Not serving, drain calls, stop subscribers, then everything else, in this order."""
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
        index = self.index = MemoryIndex(
            configuration.index.limit,
            configuration.index.tier_weights,
            configuration.index.count_copies,
        )
        scheme_of = cache(self._scheme)
        intake = self.intake = self._intake(index, scheme_of)
        ingest = self.ingest = intake.ingest
        tokenizers = await stack.enter_async_context(self._tokenizers())
        for model in configuration.models:
            if model.tokenizer is not None:
                await tokenizers.load(model.name)
        registry = CollectorRegistry()
        registry.register(StateCollector(index, ingest))
        calls = CallMetrics(registry)
        if configuration.metrics.listen:
            await self._serve_metrics(stack, registry)
        await stack.enter_async_context(intake)
        self.endpoints = intake.endpoints
        tidying = asyncio.create_task(_tidy(index), name="tidy")
        stack.push_async_callback(_cancelled, tidying)
        prompts = Prompts(tokenizers, configuration.limits)
        scoring = ScoringServicer(
            index,
            ingest.streams,
            prompts,
            scheme_of,
            [model.name for model in configuration.models],
        )
        await self._serve(stack, scoring, prompts, FleetServicer(index, intake), calls)

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
        return Tokenizers(configured, section.hub_cache, section.threads)

    async def _serve_metrics(self, stack: AsyncExitStack, registry: CollectorRegistry) -> None:
        listen = self._configuration.metrics.listen
        try:
            server = await stack.enter_async_context(MetricsServer(registry, listen))
        except OSError as error:
            raise ListenError(f"metrics.listen: cannot bind {listen}: {error}") from error
        self.metrics_port = server.port

    def _intake(self, index: MemoryIndex, scheme_of: Callable[[str], KeyScheme]) -> Intake:
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
        policy = IngestPolicy(
            count_copies=configuration.index.count_copies,
            forget_on_doubt=events.policy == "forget",
            stale_after=events.stale_seconds,
            departed_after=events.departed_seconds,
            poll_seconds=events.poll_seconds,
            waiting_bytes=events.waiting_limit,
        )
        return Intake(
            index,
            scheme_of,
            sources,
            policy,
            replay_timeout=events.replay_timeout_seconds,
            concurrent_replays=events.concurrent_replays,
            queue_messages=events.queue_messages,
        )

    async def _serve(
        self,
        stack: AsyncExitStack,
        scoring: ScoringServicer,
        prompts: Prompts,
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
        healthy = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
        enable_reflection(server, [*_SERVICES, health.SERVICE_NAME])
        for address in self._configuration.grpc.listen:
            self.addresses.append(_bind(server, address))
        await server.start()
        stack.push_async_callback(server.stop, self._configuration.grpc.drain_seconds)
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


async def _tidy(index: MemoryIndex) -> None:
    """Free what retired holders left behind, a slice at a time, between everything else."""
    while True:
        more = index.tidy()
        await asyncio.sleep(0 if more else _TIDY_SECONDS)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
