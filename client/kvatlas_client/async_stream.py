"""One long stream on which many coroutines ask at the same time."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, Unpack

import grpc
from kvatlas.v1.scoring_pb2 import ScoreStreamRequest

from kvatlas_client.errors import failure, of_call
from kvatlas_client.in_flight import InFlight
from kvatlas_client.requests import outcome_request, routing_request
from kvatlas_client.retries import LOST, Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvatlas.v1.routing_pb2 import RecordRoutingResponse, ReportOutcomeResponse
    from kvatlas.v1.scoring_pb2 import ScoreRequest, ScoreResponse

    from kvatlas_client.calls import CallSettings
    from kvatlas_client.errors import KvatlasError
    from kvatlas_client.requests import OutcomeOptions, RoutingOptions


class AsyncScoreStream:
    """Scores, routings and outcomes over one stream; `async with` opens and closes it.

    Requests of any number of coroutines are under way at the same time. When the service drains or
    the connection breaks, the stream opens another call, with growing pauses while that fails, and
    repeats what was not answered; each request waits no longer than its timeout.
    """

    def __init__(
        self, open_call: Callable[[], Any], settings: CallSettings, most_in_flight: int
    ) -> None:
        self._open_call = open_call
        self._settings = settings
        self._room = asyncio.Semaphore(most_in_flight)
        self._now = asyncio.get_running_loop().time
        self._in_flight = InFlight(self._now)
        self._outgoing: deque[ScoreStreamRequest] = deque()
        self._has_outgoing = asyncio.Event()
        self._failure: KvatlasError | None = None  # of the last call, until one is answered
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Open the stream; it is connected in the background."""
        self._task = asyncio.create_task(self._run(), name="kvatlas score stream")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the stream; requests under way fail as CANCELLED."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def score(
        self,
        request: ScoreRequest,
        *,
        timeout: float | None = None,
        traceparent: str = "",
        tracestate: str = "",
    ) -> ScoreResponse:
        """Score a prompt, within so many seconds and as a part of a trace. Raises KvatlasError."""
        message = ScoreStreamRequest(score=request, traceparent=traceparent, tracestate=tracestate)
        return await self._ask(message, timeout)  # type: ignore[no-any-return]

    async def record_routing(
        self,
        handle: bytes,
        pod: str,
        *,
        timeout: float | None = None,
        **options: Unpack[RoutingOptions],
    ) -> RecordRoutingResponse:
        """Record where a request was sent; for the options see RoutingOptions."""
        routing = routing_request(handle, pod, **options)
        return await self._ask(ScoreStreamRequest(record_routing=routing), timeout)  # type: ignore[no-any-return]

    async def report_outcome(
        self,
        handle: bytes,
        cached_tokens: int,
        *,
        timeout: float | None = None,
        **options: Unpack[OutcomeOptions],
    ) -> ReportOutcomeResponse:
        """Report what the engine had cached; for the options see OutcomeOptions."""
        outcome = outcome_request(handle, cached_tokens, **options)
        return await self._ask(ScoreStreamRequest(report_outcome=outcome), timeout)  # type: ignore[no-any-return]

    async def _ask(self, message: ScoreStreamRequest, timeout: float | None) -> Any:
        if self._task is None or self._task.done():
            raise failure(grpc.StatusCode.CANCELLED, "the stream is not open")
        ends_at = self._now() + self._settings.seconds(timeout)
        try:
            async with asyncio.timeout_at(ends_at), self._room:
                future = asyncio.get_running_loop().create_future()
                pending = self._in_flight.begin(message, ends_at, future)
                self._send(message)
                try:
                    return await future
                finally:
                    if (cancel := self._in_flight.give_up(pending)) is not None:
                        self._send(cancel)
        except TimeoutError:
            why = "" if self._failure is None else f"; the stream was lost: {self._failure}"
            text = f"no answer in time{why}"
            raise failure(grpc.StatusCode.DEADLINE_EXCEEDED, text) from self._failure

    def _send(self, message: ScoreStreamRequest) -> None:
        self._outgoing.append(message)
        self._has_outgoing.set()

    async def _run(self) -> None:
        """Hold one call after the other, until the stream or its channel is closed."""
        backoff = Backoff(self._settings.retry)
        try:
            while True:
                error = await self._converse(backoff)
                if error is None or error.code in LOST:
                    await asyncio.sleep(backoff.pause())
                else:  # another call would fail likewise: it is made for the next request only
                    self._fail_all(error)
                    self._has_outgoing.clear()
                    await self._has_outgoing.wait()
        finally:
            self._fail_all(failure(grpc.StatusCode.CANCELLED, "the stream is closed"))

    async def _converse(self, backoff: Backoff) -> KvatlasError | None:
        """Repeat what was not answered, and take answers until the call ends: its error."""
        self._outgoing = deque(self._in_flight.unanswered())
        self._has_outgoing.set()
        try:
            call = self._open_call()
        except Exception as error:  # noqa: BLE001 - a closed channel, no token: told to who asks
            return failure(grpc.StatusCode.UNKNOWN, f"the stream cannot be opened: {error!r}")
        writing = asyncio.create_task(self._write(call), name="kvatlas requests")
        try:
            async for answer in call:
                backoff.reset()
                self._failure = None
                if (pending := self._in_flight.take(answer)) is not None:
                    pending.answer(answer)
        except grpc.RpcError as error:
            self._failure = of_call(error)
            return self._failure
        finally:
            writing.cancel()
            call.cancel()
            await asyncio.wait([writing])
        return None

    async def _write(self, call: Any) -> None:
        with suppress(grpc.RpcError, asyncio.InvalidStateError):  # whoever reads learns why
            while True:
                while self._outgoing:
                    message = self._outgoing.popleft()
                    if self._in_flight.is_due(message):
                        await call.write(message)
                self._has_outgoing.clear()
                await self._has_outgoing.wait()

    def _fail_all(self, error: KvatlasError) -> None:
        for pending in self._in_flight.take_all():
            pending.fail(error)
