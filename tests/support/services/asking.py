"""Asks a service in the same words by calls and within a stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import grpc
from kvatlas.v1 import routing_pb2, routing_pb2_grpc, scoring_pb2, scoring_pb2_grpc

from support.refusals import refusal_of

_Answer = TypeVar("_Answer")


class RefusedError(Exception):
    """The service has refused a request."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason


class Asker(Protocol):
    """One way to ask. Every method but `close` raises RefusedError."""

    def close(self) -> None: ...

    async def score(self, request: scoring_pb2.ScoreRequest) -> scoring_pb2.ScoreResponse: ...

    async def record(self, **fields: Any) -> routing_pb2.RecordRoutingResponse: ...

    async def report(self, **fields: Any) -> routing_pb2.ReportOutcomeResponse: ...


class BatchAsker(Asker):
    """Asks by calls that take several requests, with one each."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._scoring: Any = scoring_pb2_grpc.ScoringServiceStub(channel)
        self._routing: Any = routing_pb2_grpc.RoutingServiceStub(channel)

    def close(self) -> None:
        """Nothing is open."""

    async def score(self, request: scoring_pb2.ScoreRequest) -> scoring_pb2.ScoreResponse:
        many = scoring_pb2.ScoreManyRequest(requests=[request])
        answer: scoring_pb2.ScoreManyResponse = await self._scoring.ScoreMany(many)
        return _only(answer.responses, answer.errors)

    async def record(self, **fields: Any) -> routing_pb2.RecordRoutingResponse:
        many = routing_pb2.RecordRoutingsRequest(requests=[fields])
        answer: routing_pb2.RecordRoutingsResponse = await self._routing.RecordRoutings(many)
        return _only(answer.responses, answer.errors)

    async def report(self, **fields: Any) -> routing_pb2.ReportOutcomeResponse:
        many = routing_pb2.ReportOutcomesRequest(requests=[fields])
        answer: routing_pb2.ReportOutcomesResponse = await self._routing.ReportOutcomes(many)
        return _only(answer.responses, answer.errors)


class StreamAsker(Asker):
    """Asks within one stream."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call: Any = scoring_pb2_grpc.ScoringServiceStub(channel).ScoreStream()
        self._id = 0

    def close(self) -> None:
        """End the stream."""
        self._call.cancel()

    async def _ask(self, **action: Any) -> scoring_pb2.ScoreStreamResponse:
        self._id += 1
        await self._call.write(scoring_pb2.ScoreStreamRequest(id=self._id, **action))
        answer = await self._call.read()
        assert isinstance(answer, scoring_pb2.ScoreStreamResponse)
        assert answer.id == self._id
        if answer.HasField("error"):
            raise _refused(answer.error)
        return answer

    async def score(self, request: scoring_pb2.ScoreRequest) -> scoring_pb2.ScoreResponse:
        return (await self._ask(score=request)).response

    async def record(self, **fields: Any) -> routing_pb2.RecordRoutingResponse:
        return (await self._ask(record_routing=fields)).routing

    async def report(self, **fields: Any) -> routing_pb2.ReportOutcomeResponse:
        return (await self._ask(report_outcome=fields)).outcome


class CallAsker(Asker):
    """Asks by one call for each request."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._scoring: Any = scoring_pb2_grpc.ScoringServiceStub(channel)
        self._routing: Any = routing_pb2_grpc.RoutingServiceStub(channel)

    def close(self) -> None:
        """Nothing is open."""

    async def score(self, request: scoring_pb2.ScoreRequest) -> scoring_pb2.ScoreResponse:
        return await _answered(self._scoring.Score(request))

    async def record(self, **fields: Any) -> routing_pb2.RecordRoutingResponse:
        call = self._routing.RecordRouting(routing_pb2.RecordRoutingRequest(**fields))
        return await _answered(call)

    async def report(self, **fields: Any) -> routing_pb2.ReportOutcomeResponse:
        call = self._routing.ReportOutcome(routing_pb2.ReportOutcomeRequest(**fields))
        return await _answered(call)


ASKERS: dict[str, Callable[[grpc.aio.Channel], Asker]] = {
    "calls": CallAsker,
    "batches": BatchAsker,
    "stream": StreamAsker,
}


async def _answered(call: Awaitable[_Answer]) -> _Answer:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        refusal = refusal_of(error)
        raise RefusedError(refusal.code.value[0], refusal.reason, refusal.text) from error


def _only(responses: Sequence[_Answer], errors: Mapping[int, routing_pb2.ScoreError]) -> _Answer:
    if errors:
        raise _refused(errors[0])
    (response,) = responses
    return response


def _refused(error: routing_pb2.ScoreError) -> RefusedError:
    return RefusedError(error.code, error.reason, error.message)
