"""The requests and answers of one ScoreStream."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kvatlas.v1 import scoring_pb2

from service.kernel import length_delimited, varint
from service.rpc.bounds import LARGE_BYTES, LongWork
from service.rpc.errors import DeadlineOverError, InvalidRequestError, TooLargeError
from service.rpc.exchange import CallerLeftError
from service.rpc.scoring.errors import score_error

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from service.rpc.bounds import CallBounds
    from service.rpc.exchange import MessageExchange
    from service.rpc.routing import RoutingRecorder
    from service.rpc.scoring.scorer import Scorer

    Context = grpc.aio.ServicerContext[Any, Any]
    _Request = scoring_pb2.ScoreStreamRequest

_ID_TAG = b"\x08"
_RESPONSE = scoring_pb2.ScoreStreamResponse.RESPONSE_FIELD_NUMBER
_ERROR = scoring_pb2.ScoreStreamResponse.ERROR_FIELD_NUMBER
_ROUTING = scoring_pb2.ScoreStreamResponse.ROUTING_FIELD_NUMBER
_OUTCOME = scoring_pb2.ScoreStreamResponse.OUTCOME_FIELD_NUMBER
_RECORDS = {"record_routing", "report_outcome"}
_TURN_SECONDS = 0.0003  # how long one stream is answered before others are


class _Clock:
    """How long a request takes; when its caller gives it up: by its own time or the stream's.

    request: None if it was not decoded.
    """

    def __init__(
        self, context: Context, request: _Request | None, now: Callable[[], float]
    ) -> None:
        self._context = context
        self._request = request
        self._now = now
        self._began = now()
        timeout_ms = 0 if request is None else request.timeout_ms
        self._ends_at = self._began + timeout_ms / 1000 if timeout_ms else None

    def seconds(self) -> float:
        """Return the seconds since the request came."""
        return self._now() - self._began

    def invocation_metadata(self) -> list[tuple[str, str]]:
        """Return what a call of its own would say of the trace that the request belongs to."""
        request = self._request
        if request is None or not request.traceparent:
            return []
        return [("traceparent", request.traceparent), ("tracestate", request.tracestate)]

    def time_remaining(self) -> float | None:
        """Return the seconds until then; None for no deadline."""
        of_stream = self._context.time_remaining()
        if self._ends_at is None:
            return of_stream
        own = max(0.0, self._ends_at - self._now())
        return own if of_stream is None else min(own, of_stream)


class ScoreStream:
    """Answers the requests of one stream, several at a time.

    A prompt of token ids is scored at once. What has to be tokenized, or asked of the store, is
    done in a task of its own, so that the requests after it need not wait for it. A request is
    under way until its answer is written.
    """

    def __init__(
        self,
        scorer: Scorer,
        recorder: RoutingRecorder,
        bounds: CallBounds,
        exchange: MessageExchange,
        context: Context,
    ) -> None:
        self._scorer = scorer
        self._recorder = recorder
        self._bounds = bounds
        self._exchange = exchange
        self._context = context
        self._limits = scorer.limits
        self._counts = bounds.stream_requests
        self._now = asyncio.get_running_loop().time
        self._tasks: dict[int, asyncio.Task[None]] = {}  # by the id of the request

    async def run(self) -> None:
        """Answer until the caller sends no more. Raises KNOWN_ERRORS, which end the stream."""
        began = self._now()
        try:
            while (raw := await self._exchange.read()) is not None:
                await self._take(raw)
                # A caller who never pauses would keep all others waiting.
                if self._now() - began > _TURN_SECONDS:
                    await asyncio.sleep(0)
                    began = self._now()
            while self._tasks:
                await asyncio.wait(self._tasks.values())
        finally:
            for task in self._tasks.values():
                task.cancel()

    async def _take(self, raw: bytes) -> None:
        """Answer one message of the caller, or begin to."""
        try:
            if len(raw) > LARGE_BYTES:
                kind = scoring_pb2.ScoreStreamRequest
                await self._bounds.check_large(kind, raw, self._context)
        except TooLargeError as error:
            await self._bounds.turns.slow_down()
            await self._exchange.write(self._failed(_id_of(raw), error, self._clock(None)))
            return
        request = self._bounds.read(scoring_pb2.ScoreStreamRequest, raw)
        action = request.WhichOneof("action")
        if action == "cancel":
            if (task := self._tasks.get(request.id)) is not None:
                task.cancel()
        elif request.id not in self._tasks and (
            action in _RECORDS or self._scorer.is_immediate(request.score, len(raw))
        ):
            clock = self._clock(request)
            await self._exchange.write(await self._answer(request, len(raw), clock))
        else:
            await self._begin(request, len(raw))

    async def _begin(self, request: scoring_pb2.ScoreStreamRequest, size: int) -> None:
        """Answer a request in a task, once fewer than the limit are under way."""
        if request.id in self._tasks:
            error = InvalidRequestError(f"the request with id {request.id} is still under way")
            await self._exchange.write(self._failed(request.id, error, self._clock(request)))
            return
        while len(self._tasks) >= self._limits.stream_requests:
            await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.create_task(self._answer_later(request, size), name="stream request")
        self._tasks[request.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(request.id))

    async def _answer_later(self, request: scoring_pb2.ScoreStreamRequest, size: int) -> None:
        clock = self._clock(request)
        try:
            async with asyncio.timeout(clock.time_remaining()):
                answer = await self._answer(request, size, clock)
        except TimeoutError:
            answer = self._failed(request.id, DeadlineOverError(), clock)
        except asyncio.CancelledError:
            self._counts.end("CANCELLED", clock.seconds())
            raise
        with suppress(CallerLeftError):  # whoever reads will notice
            await self._exchange.write(answer)

    def _clock(self, request: _Request | None) -> _Clock:
        """Count a request as under way."""
        clock = _Clock(self._context, request, self._now)
        self._counts.begin(clock)
        return clock

    async def _answer(
        self, request: scoring_pb2.ScoreStreamRequest, size: int, clock: _Clock
    ) -> bytes:
        """Return the encoded `ScoreStreamResponse` to a request of `size` bytes."""
        admission, tenant = self._bounds.admission, self._exchange.tenant
        try:
            if request.WhichOneof("action") is None:
                raise InvalidRequestError(
                    "set one of score, cancel, record_routing, report_outcome"
                )
            admission.enter(size, tenant)
            try:
                encoded = await self._result(request, clock)
            finally:
                admission.leave(size, tenant)
            self._bounds.check_answer(encoded)
        except Exception as error:  # noqa: BLE001 - the stream goes on
            return self._failed(request.id, error, clock)
        self._counts.end("OK", clock.seconds())
        return _ID_TAG + varint(request.id) + encoded

    async def _result(self, request: scoring_pb2.ScoreStreamRequest, clock: _Clock) -> bytes:
        """Do what a request asks for; return the encoded field of the answer."""
        match request.WhichOneof("action"):
            case "score":
                work = LongWork(self._bounds.turns, clock)
                scored = await self._scorer.score(request.score, work, self._limits.call_tokens)
                return length_delimited(_RESPONSE, scored.encoded)
            case "record_routing":
                routing = self._recorder.record(request.record_routing)
                return length_delimited(_ROUTING, routing.SerializeToString())
            case _:
                outcome = self._recorder.report(request.report_outcome)
                return length_delimited(_OUTCOME, outcome.SerializeToString())

    def _failed(self, request_id: int, error: Exception, clock: _Clock) -> bytes:
        """Return the encoded answer to a request that has failed."""
        refusal = self._bounds.refuse(error, self._exchange.method)
        self._counts.end(refusal.status.name, clock.seconds())
        encoded = score_error(refusal).SerializeToString()
        return _ID_TAG + varint(request_id) + length_delimited(_ERROR, encoded)


def _id_of(raw: bytes) -> int:
    """Return the id of a request that is too large to be decoded; 0 if it does not come first."""
    if not raw.startswith(_ID_TAG):
        return 0
    value = 0
    for shift, byte in enumerate(raw[1:11]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            break
    return value & (2**64 - 1)
