"""A naive gRPC server that refuses the first so many calls, and counts them all."""

# ruff: noqa: N802 - the methods have the names of the rpcs

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from queue import SimpleQueue
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

from support.deadlines import DEADLINE_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from kvatlas.v1.scoring_pb2 import ScoreStreamRequest


_THREADS = 32
_BROKEN = object()
_Events = SimpleQueue[Any]
"""What becomes of a stream: answers, at last _BROKEN or None."""


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
        self._arrived = threading.Condition()
        self._streams: list[_Events] = []

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until `holds` is true of what has arrived."""
        assert await asyncio.to_thread(self._until, holds)

    def _until(self, holds: Callable[[], bool]) -> bool:
        with self._arrived:
            return self._arrived.wait_for(holds, DEADLINE_SECONDS)

    async def until_streamed(self, count: int) -> None:
        """Wait until so many messages of the first stream have arrived."""
        await self.until(lambda: len(self.messages[0]) == count if self.messages else False)

    def break_streams(self) -> None:
        """End all streams as UNAVAILABLE."""
        streams, self._streams = self._streams, []
        for events in streams:
            events.put(_BROKEN)

    def Score(self, request: Any, context: Any) -> ScoreResponse:
        self._take(request, context)
        return ScoreResponse(total_tokens=len(self.calls))

    def ScoreMany(self, request: Any, context: Any) -> ScoreManyResponse:
        self._take(request, context)
        answers = [ScoreResponse(total_tokens=n) for n in range(len(request.requests))]
        return ScoreManyResponse(responses=answers, errors={1: not_found()})

    def RecordRouting(self, request: Any, context: Any) -> RecordRoutingResponse:
        self._take(request, context)
        return RecordRoutingResponse(speculative_blocks=len(request.handle))

    def RecordRoutings(self, request: Any, context: Any) -> RecordRoutingsResponse:
        self._take(request, context)
        answers = [RecordRoutingResponse(promised_tokens=n) for n in range(len(request.requests))]
        return RecordRoutingsResponse(responses=answers, errors={0: not_found()})

    def ReportOutcome(self, request: Any, context: Any) -> ReportOutcomeResponse:
        self._take(request, context)
        return ReportOutcomeResponse(promised_tokens=request.cached_tokens)

    def ReportOutcomes(self, request: Any, context: Any) -> ReportOutcomesResponse:
        self._take(request, context)
        answers = [ReportOutcomeResponse(promised_tokens=n) for n in range(len(request.requests))]
        return ReportOutcomesResponse(responses=answers)

    def Explain(self, request: Any, context: Any) -> ExplainResponse:
        self._take(request, context)
        return ExplainResponse(summary=request.score.model)

    def LookupBlocks(self, request: Any, context: Any) -> LookupBlocksResponse:
        self._take(request, context)
        return LookupBlocksResponse(blocks=[FoundBlock(key=key) for key in request.keys])

    def WatchPods(self, request: Any, context: Any) -> Iterator[WatchPodsResponse]:
        """Yield each pod of the request, and wait until streams are broken."""
        events = self._open_stream()
        self._take(request, context)
        context.add_callback(lambda: events.put(None))
        for pod in request.pods:
            yield WatchPodsResponse(pod=pod, model=request.model)
        if events.get() is _BROKEN:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the service is stopping")

    def ScoreStream(self, requests: Any, context: Any) -> Iterator[ScoreStreamResponse]:
        self._take(None, context)
        events = self._open_stream()
        received: list[ScoreStreamRequest] = []
        self.messages.append(received)

        def receive() -> None:
            with suppress(grpc.RpcError):  # the caller has gone
                for request in requests:
                    with self._arrived:
                        received.append(request)
                        self._arrived.notify_all()
                    if (answer := self.answer(request)) is not None:
                        events.put(answer)
            events.put(None)

        receiving = threading.Thread(target=receive, daemon=True)
        receiving.start()
        while (event := events.get()) is not None:
            if event is _BROKEN:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the service is stopping")
            yield event

    def _open_stream(self) -> _Events:
        events: _Events = SimpleQueue()
        self._streams.append(events)
        return events

    def _take(self, request: Any, context: Any) -> None:
        with self._arrived:
            self.calls.append(request)
            self.metadata.append(dict(context.invocation_metadata()))
            is_refused = self.refusals > 0
            self.refusals -= is_refused
            self._arrived.notify_all()
        if is_refused:
            context.abort(self.code, f"{self.refusals} refusals are left")


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
    server = grpc.server(ThreadPoolExecutor(_THREADS))
    scoring_pb2_grpc.add_ScoringServiceServicer_to_server(flaky, server)
    routing_pb2_grpc.add_RoutingServiceServicer_to_server(flaky, server)
    explain_pb2_grpc.add_ExplainServiceServicer_to_server(flaky, server)
    fleet_pb2_grpc.add_FleetServiceServicer_to_server(flaky, server)
    port = server.add_insecure_port(address)
    flaky.address = f"127.0.0.1:{port}"
    server.start()
    try:
        yield flaky
    finally:
        await asyncio.to_thread(server.stop(0).wait)
