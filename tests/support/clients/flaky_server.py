"""A naive gRPC server that refuses the first so many calls, and counts them all."""

# ruff: noqa: N802 - the methods have the names of the rpcs

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
from kvatlas.v1 import explain_pb2_grpc, fleet_pb2_grpc, routing_pb2_grpc, scoring_pb2_grpc
from kvatlas.v1.explain_pb2 import ExplainResponse, FoundBlock, LookupBlocksResponse
from kvatlas.v1.fleet_pb2 import WatchPodsResponse
from kvatlas.v1.routing_pb2 import (
    RecordRoutingResponse,
    RecordRoutingsResponse,
    ReportOutcomeResponse,
    ReportOutcomesResponse,
    ScoreError,
)
from kvatlas.v1.scoring_pb2 import ScoreManyResponse, ScoreResponse, ScoreStreamResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from kvatlas.v1.scoring_pb2 import ScoreStreamRequest


class FlakyServer(
    scoring_pb2_grpc.ScoringServiceServicer,
    routing_pb2_grpc.RoutingServiceServicer,
    explain_pb2_grpc.ExplainServiceServicer,
    fleet_pb2_grpc.FleetServiceServicer,
):
    """Answers so little that tests can tell by it what arrived."""

    def __init__(self) -> None:
        self.address = ""
        self.calls: list[Any] = []
        """The requests of all calls, refused or not."""
        self.metadata: list[dict[str, str | bytes]] = []
        """Of all calls."""
        self.refusals = 0
        """So many calls are refused from now on."""
        self.code = grpc.StatusCode.UNAVAILABLE
        self.answer: Callable[[ScoreStreamRequest], ScoreStreamResponse | None] = echo
        """Answers a request of a stream; None: not yet."""
        self.messages: list[list[ScoreStreamRequest]] = []
        """The messages of each stream."""
        self._arrived = asyncio.Condition()
        self._broken = asyncio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until `holds` is true of what has arrived."""
        async with self._arrived:
            await self._arrived.wait_for(holds)

    async def until_streamed(self, count: int) -> None:
        """Wait until so many messages of the first stream have arrived."""
        await self.until(lambda: len(self.messages[0]) == count if self.messages else False)

    def break_streams(self) -> None:
        """End all streams as UNAVAILABLE."""
        self._broken.set()
        self._broken = asyncio.Event()

    async def Score(self, request: Any, context: Any) -> ScoreResponse:
        await self._take(request, context)
        return ScoreResponse(total_tokens=len(self.calls))

    async def ScoreMany(self, request: Any, context: Any) -> ScoreManyResponse:
        await self._take(request, context)
        answers = [ScoreResponse(total_tokens=n) for n in range(len(request.requests))]
        return ScoreManyResponse(responses=answers, errors={1: not_found()})

    async def RecordRouting(self, request: Any, context: Any) -> RecordRoutingResponse:
        await self._take(request, context)
        return RecordRoutingResponse(speculative_blocks=len(request.handle))

    async def RecordRoutings(self, request: Any, context: Any) -> RecordRoutingsResponse:
        await self._take(request, context)
        answers = [RecordRoutingResponse(promised_tokens=n) for n in range(len(request.requests))]
        return RecordRoutingsResponse(responses=answers, errors={0: not_found()})

    async def ReportOutcome(self, request: Any, context: Any) -> ReportOutcomeResponse:
        await self._take(request, context)
        return ReportOutcomeResponse(promised_tokens=request.cached_tokens)

    async def ReportOutcomes(self, request: Any, context: Any) -> ReportOutcomesResponse:
        await self._take(request, context)
        answers = [ReportOutcomeResponse(promised_tokens=n) for n in range(len(request.requests))]
        return ReportOutcomesResponse(responses=answers)

    async def Explain(self, request: Any, context: Any) -> ExplainResponse:
        await self._take(request, context)
        return ExplainResponse(summary=request.score.model)

    async def LookupBlocks(self, request: Any, context: Any) -> LookupBlocksResponse:
        await self._take(request, context)
        return LookupBlocksResponse(blocks=[FoundBlock(key=key) for key in request.keys])

    async def WatchPods(self, request: Any, context: Any) -> None:
        """Write each pod of the request, and wait until streams are broken."""
        broken = self._broken
        await self._take(request, context)
        for pod in request.pods:
            await context.write(WatchPodsResponse(pod=pod, model=request.model))
        await broken.wait()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the service is stopping")

    async def ScoreStream(self, requests: Any, context: Any) -> None:
        await self._take(None, context)
        broken = self._broken
        received: list[ScoreStreamRequest] = []
        self.messages.append(received)

        async def serve() -> None:
            async for request in requests:
                received.append(request)
                async with self._arrived:
                    self._arrived.notify_all()
                if (answer := self.answer(request)) is not None:
                    await context.write(answer)

        serving = asyncio.create_task(serve())
        breaking = asyncio.create_task(broken.wait())
        try:
            await asyncio.wait([serving, breaking], return_when=asyncio.FIRST_COMPLETED)
            if broken.is_set():
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the service is stopping")
        finally:
            serving.cancel()
            breaking.cancel()

    async def _take(self, request: Any, context: Any) -> None:
        self.calls.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        async with self._arrived:
            self._arrived.notify_all()
        if self.refusals:
            self.refusals -= 1
            await context.abort(self.code, f"{self.refusals} refusals are left")


def echo(request: ScoreStreamRequest) -> ScoreStreamResponse | None:
    """The answer that tells by its numbers which request it is for; none to a cancellation."""
    answer = ScoreStreamResponse(id=request.id)
    match request.WhichOneof("action"):
        case "score":
            answer.response.total_tokens = len(request.score.prompt.packed_token_ids) // 4
        case "record_routing":
            answer.routing.speculative_blocks = len(request.record_routing.handle)
        case "report_outcome":
            answer.outcome.promised_tokens = request.report_outcome.cached_tokens
        case _:
            return None
    return answer


def not_found() -> ScoreError:
    """An error as it stands in an answer."""
    return ScoreError(code=5, message="nobody's", reason="MODEL_UNKNOWN", limit="limits.some")


@asynccontextmanager
async def flaky_server(address: str = "127.0.0.1:0") -> AsyncIterator[FlakyServer]:
    """A server that refuses nothing yet."""
    flaky = FlakyServer()
    server = grpc.aio.server()
    scoring_pb2_grpc.add_ScoringServiceServicer_to_server(flaky, server)
    routing_pb2_grpc.add_RoutingServiceServicer_to_server(flaky, server)
    explain_pb2_grpc.add_ExplainServiceServicer_to_server(flaky, server)
    fleet_pb2_grpc.add_FleetServiceServicer_to_server(flaky, server)
    port = server.add_insecure_port(address)
    flaky.address = f"127.0.0.1:{port}"
    await server.start()
    try:
        yield flaky
    finally:
        await server.stop(0)
        del server  # what it still has to do as it is deleted needs a running loop
