"""Calls are counted as their callers saw them, and whatever a servicer raises has a status."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from kvatlas.compat import tokenization_pb2 as compat
from kvatlas.v1 import tokenization_pb2 as ours
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import ByteSize
from support.deadlines import DEADLINE_SECONDS
from support.refusals import refusal

from service.config import LimitsSection
from service.metrics import CallMetrics
from service.rpc import CallBounds, add_service

OURS = ours.DESCRIPTOR.services_by_name["TokenizationService"]
COMPAT = compat.DESCRIPTOR.services_by_name["TokenizationService"]
LIMITS = LimitsSection()
OUR_NAME, COMPAT_NAME = OURS.full_name, COMPAT.full_name

COUNT = "kvatlas_rpc_duration_seconds_count"
STARTED = (
    'grpc_server_started_total{grpc_method="Tokenize",'
    f'grpc_service="{OUR_NAME}",grpc_type="unary"}} 1.0'
)


def handled(code: str, service: str) -> str:
    return (
        f'grpc_server_handled_total{{grpc_code="{code}",grpc_method="Tokenize",'
        f'grpc_service="{service}",grpc_type="unary"}} '
    )


class Servicer:
    """Answers `Tokenize` as a test says."""

    def __init__(self, method: Callable[[Any, Any], Awaitable[Any]]) -> None:
        self.Tokenize = method

    def __getattr__(self, name: str) -> Any:
        return None


class Served:
    """A service under test."""

    def __init__(self, channel: grpc.aio.Channel, registry: CollectorRegistry) -> None:
        self._channel = channel
        self._registry = registry

    def call(self, service: Any = OURS, **options: Any) -> Any:
        call: Any = self._channel.unary_unary(f"/{service.full_name}/Tokenize")
        return call(b"", **options)

    async def until_counted(self, line: str) -> None:
        """Wait until the metrics have a line."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while line not in self.metrics:  # noqa: ASYNC110 - a call may still be ending
                await asyncio.sleep(0.001)

    @property
    def metrics(self) -> list[str]:
        return generate_latest(self._registry).decode().splitlines()


@asynccontextmanager
async def served(
    *methods: tuple[Any, Callable[[Any, Any], Awaitable[Any]]], limits: LimitsSection = LIMITS
) -> AsyncIterator[Served]:
    registry = CollectorRegistry()
    metrics = CallMetrics(registry)
    bounds = CallBounds(limits, metrics)
    server = grpc.aio.server()
    for service, method in methods:
        add_service(server, service, Servicer(method), metrics, bounds)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Served(channel, registry)
    await server.stop(None)


async def answer(request: Any, context: Any) -> ours.TokenizeResponse:
    return ours.TokenizeResponse(text="x")


async def fail_in_answer(request: Any, context: Any) -> compat.TokenizeResponse:
    return compat.TokenizeResponse(success=False)


async def wait(request: Any, context: Any) -> None:
    await asyncio.Event().wait()


async def hold_the_loop(request: Any, context: Any) -> ours.TokenizeResponse:
    time.sleep(0.3)  # noqa: ASYNC251 - a servicer that does not notice the deadline
    return ours.TokenizeResponse(text="x")


async def fail(request: Any, context: Any) -> None:
    raise ZeroDivisionError


async def test_two_services_with_methods_of_one_name_are_counted_apart() -> None:
    async with served((OURS, answer), (COMPAT, fail_in_answer)) as service:
        for which in (OURS, OURS, COMPAT):
            await service.call(which)
        for line in (
            handled("OK", OUR_NAME) + "2.0",
            handled("OK", COMPAT_NAME) + "1.0",
            COUNT + '{method="Tokenize",status="OK"} 2.0',
            f'{COUNT}{{method="{COMPAT_NAME}/Tokenize",status="OK"}} 1.0',
            f'kvatlas_rpc_failed_answers_total{{method="Tokenize",service="{COMPAT_NAME}"}} 1.0',
        ):
            await service.until_counted(line)


async def test_a_call_that_its_caller_cancels_is_counted_as_cancelled() -> None:
    async with served((OURS, wait)) as service:
        under_way = (
            'kvatlas_rpc_under_way{method="Tokenize",service="kvatlas.v1.TokenizationService"}'
        )
        call = service.call(timeout=DEADLINE_SECONDS)
        await service.until_counted(f"{under_way} 1.0")
        call.cancel()
        await service.until_counted(handled("CANCELLED", OUR_NAME) + "1.0")
        await service.until_counted(f"{under_way} 0.0")


@pytest.mark.parametrize("method", [wait, hold_the_loop])
async def test_a_call_whose_deadline_passes_is_counted_as_expired(method: Any) -> None:
    async with served((OURS, method)) as service:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await service.call(timeout=0.1)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await service.until_counted(handled("DEADLINE_EXCEEDED", OUR_NAME) + "1.0")


async def test_an_accident_is_an_internal_error_that_tells_nothing() -> None:
    async with served((OURS, fail)) as service:
        found = await refusal(service.call())
        assert (found.code, found.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert "division" not in found.text
        await service.until_counted('kvatlas_rpc_errors_total{reason="INTERNAL"} 1.0')


async def test_started_calls_are_counted_and_refused_ones_by_their_limit() -> None:
    limits = LimitsSection(answer_bytes=ByteSize(1024))

    async def long(request: Any, context: Any) -> ours.TokenizeResponse:
        return ours.TokenizeResponse(text="x" * 1024)

    async with served((OURS, long), limits=limits) as service:
        found = await refusal(service.call())
        assert found.metadata == {"limit": "limits.answer_bytes"}
        for line in (
            STARTED,
            'kvatlas_limits_exceeded_total{limit="answer_bytes"} 1.0',
            'kvatlas_rpc_errors_total{reason="LIMIT_EXCEEDED"} 1.0',
            handled("RESOURCE_EXHAUSTED", OUR_NAME) + "1.0",
        ):
            await service.until_counted(line)
