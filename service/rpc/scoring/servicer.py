"""The methods of ScoringService."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvatlas.v1 import routing_pb2, scoring_pb2, scoring_pb2_grpc
from typing_extensions import override

from service.kernel import length_delimited
from service.rpc.bounds import LongWork
from service.rpc.errors import CallTooLargeError, DeadlineOverError, TooLargeError
from service.rpc.scoring.errors import score_error
from service.rpc.scoring.stream import ScoreStream

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    from service.rpc.bounds import CallBounds
    from service.rpc.exchange import MessageExchange
    from service.rpc.routing import RoutingRecorder
    from service.rpc.scoring.scorer import Scorer

_SCORE_MANY = "kvatlas.v1.ScoringService.ScoreMany"
_RESPONSES = scoring_pb2.ScoreManyResponse.RESPONSES_FIELD_NUMBER


class ScoringServicer(scoring_pb2_grpc.ScoringServiceServicer):
    """Answers `Score`, `ScoreMany` and `ScoreStream`, which all ask the same `Scorer`."""

    def __init__(self, scorer: Scorer, recorder: RoutingRecorder, bounds: CallBounds) -> None:
        self._scorer = scorer
        self._recorder = recorder
        self._bounds = bounds
        self._limits = scorer.limits

    @override
    async def Score(
        self,
        request: scoring_pb2.ScoreRequest,
        context: ServicerContext[scoring_pb2.ScoreRequest, scoring_pb2.ScoreResponse],
    ) -> bytes:
        """Return an encoded `ScoreResponse`."""
        work = LongWork(self._bounds.turns, context)
        return (await self._scorer.score(request, work, self._limits.call_tokens)).encoded

    @override
    async def ScoreMany(
        self,
        request: scoring_pb2.ScoreManyRequest,
        context: ServicerContext[scoring_pb2.ScoreManyRequest, scoring_pb2.ScoreManyResponse],
    ) -> bytes:
        """Return an encoded `ScoreManyResponse`."""
        limits, work = self._limits, LongWork(self._bounds.turns, context)
        if len(request.requests) > limits.prompts:
            raise TooLargeError(
                f"there are {len(request.requests)} requests, the limit is {limits.prompts}",
                "prompts",
            )
        encoded: list[bytes] = []
        errors: dict[int, routing_pb2.ScoreError] = {}
        tokens_left, bytes_left = limits.call_tokens, int(limits.answer_bytes)
        for index, one in enumerate(request.requests):
            response = b""
            try:
                response, tokens = await self._scorer.score(one, work, tokens_left)
                tokens_left -= tokens
            except (CallTooLargeError, DeadlineOverError):
                raise
            except Exception as error:  # noqa: BLE001 - the other prompts are answered
                errors[index] = score_error(self._bounds.refuse(error, _SCORE_MANY))
            encoded.append(length_delimited(_RESPONSES, response))
            bytes_left -= len(encoded[-1])
            if bytes_left < 0:
                raise CallTooLargeError(
                    f"the answer has more than {limits.answer_bytes} bytes", "answer_bytes"
                )
            await work.pause()
        if errors:
            encoded.append(scoring_pb2.ScoreManyResponse(errors=errors).SerializeToString())
        return b"".join(encoded)

    @override
    async def ScoreStream(self, exchange: MessageExchange, context: Any) -> None:
        """Answer the requests of a stream."""
        stream = ScoreStream(self._scorer, self._recorder, self._bounds, exchange, context)
        await stream.run()
