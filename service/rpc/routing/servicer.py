"""The methods of RoutingService."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from kvatlas.v1 import routing_pb2, routing_pb2_grpc
from typing_extensions import override

from service.rpc.bounds import LongWork
from service.rpc.errors import DeadlineOverError, TooLargeError
from service.rpc.scoring.errors import score_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grpc.aio import ServicerContext
    from kvatlas.v1.routing_pb2 import (
        RecordRoutingRequest,
        RecordRoutingResponse,
        RecordRoutingsRequest,
        RecordRoutingsResponse,
        ReportOutcomeRequest,
        ReportOutcomeResponse,
        ReportOutcomesRequest,
        ReportOutcomesResponse,
    )

    from service.rpc.bounds import CallBounds
    from service.rpc.routing.recorder import RoutingRecorder

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_SERVICE = "kvatlas.v1.RoutingService"


class RoutingServicer(routing_pb2_grpc.RoutingServiceServicer):
    """Answers RoutingService."""

    def __init__(self, recorder: RoutingRecorder, bounds: CallBounds) -> None:
        self._recorder = recorder
        self._bounds = bounds

    @override
    async def RecordRouting(
        self,
        request: RecordRoutingRequest,
        context: ServicerContext[RecordRoutingRequest, RecordRoutingResponse],
    ) -> RecordRoutingResponse:
        return self._recorder.record(request)

    @override
    async def RecordRoutings(
        self,
        request: RecordRoutingsRequest,
        context: ServicerContext[RecordRoutingsRequest, RecordRoutingsResponse],
    ) -> RecordRoutingsResponse:
        answers, errors = await self._each(
            *(request.requests, self._recorder.record, routing_pb2.RecordRoutingResponse),
            *("RecordRoutings", context),
        )
        return routing_pb2.RecordRoutingsResponse(responses=answers, errors=errors)

    @override
    async def ReportOutcome(
        self,
        request: ReportOutcomeRequest,
        context: ServicerContext[ReportOutcomeRequest, ReportOutcomeResponse],
    ) -> ReportOutcomeResponse:
        return self._recorder.report(request)

    @override
    async def ReportOutcomes(
        self,
        request: ReportOutcomesRequest,
        context: ServicerContext[ReportOutcomesRequest, ReportOutcomesResponse],
    ) -> ReportOutcomesResponse:
        answers, errors = await self._each(
            *(request.requests, self._recorder.report, routing_pb2.ReportOutcomeResponse),
            *("ReportOutcomes", context),
        )
        return routing_pb2.ReportOutcomesResponse(responses=answers, errors=errors)

    async def _each(
        self,
        requests: Sequence[_Request],
        answer: Callable[[_Request], _Response],
        empty: Callable[[], _Response],
        method: str,
        context: ServicerContext[Any, Any],
    ) -> tuple[list[_Response], dict[int, routing_pb2.ScoreError]]:
        """Answer several requests, each by itself."""
        limit, work = self._recorder.limits.prompts, LongWork(self._bounds.turns, context)
        if len(requests) > limit:
            raise TooLargeError(
                f"there are {len(requests)} requests, the limit is {limit}", "prompts"
            )
        answers: list[_Response] = []
        errors: dict[int, routing_pb2.ScoreError] = {}
        for index, request in enumerate(requests):
            try:
                answers.append(answer(request))
            except DeadlineOverError:
                raise
            except Exception as error:  # noqa: BLE001 - the others are answered
                answers.append(empty())
                errors[index] = score_error(self._bounds.refuse(error, f"{_SERVICE}.{method}"))
            await work.pause()
        return answers, errors
