"""One long stream on which many threads ask at the same time."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack, cast

import grpc
from kvatlas.v1.scoring_pb2 import ScoreStreamRequest

from kvatlas_client.errors import failure, of_call
from kvatlas_client.in_flight import InFlight, Pending
from kvatlas_client.requests import outcome_request, routing_request
from kvatlas_client.retries import LOST, Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kvatlas.v1.routing_pb2 import RecordRoutingResponse, ReportOutcomeResponse
    from kvatlas.v1.scoring_pb2 import ScoreRequest, ScoreResponse

    from kvatlas_client.calls import CallSettings
    from kvatlas_client.errors import KvatlasError
    from kvatlas_client.requests import OutcomeOptions, RoutingOptions

Response = TypeVar("Response")
_Outgoing = SimpleQueue[ScoreStreamRequest | None]  # None: there are no more


class Answer(Generic[Response]):
    """The answer to a request that is under way."""

    def __init__(self, pending: Pending, give_up: Callable[[Pending], None]) -> None:
        self._pending = pending
        self._give_up = give_up
        self._future = cast("Future[Response]", pending.future)

    def done(self) -> bool:
        """Return whether `result` returns or raises at once."""
        return self._future.done()

    def result(self) -> Response:
        """Wait for the answer until the time of the request is over. Raises KvatlasError."""
        try:
            return self._future.result(max(0.0, self._pending.ends_at - time.monotonic()))
        except TimeoutError:
            self._give_up(self._pending)
            return self._future.result()

    def cancel(self) -> None:
        """Give the request up: `result` raises DeadlineError, unless there is an answer."""
        self._give_up(self._pending)


class ScoreStream:
    """Scores, routings and outcomes over one stream; `with` or `close` closes it.

    Any number of threads may ask at the same time. When the service drains or the connection
    breaks, the stream opens another call, with growing pauses while that fails, and repeats what
    was not answered; each request waits no longer than its timeout.
    """

    def __init__(
        self, open_call: Callable[..., Any], settings: CallSettings, most_in_flight: int
    ) -> None:
        self._open_call = open_call
        self._settings = settings
        self._room = threading.Semaphore(most_in_flight)
        self._lock = threading.Lock()  # over what follows
        self._in_flight = InFlight(time.monotonic)
        self._outgoing: _Outgoing = SimpleQueue()
        self._call: Any = None
        self._failure: KvatlasError | None = None  # of the last call, until one is answered
        self._asked = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kvatlas score stream", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """Return the stream, which is connected in the background."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the stream."""
        self.close()

    def close(self) -> None:
        """Close the stream; requests under way fail as CANCELLED."""
        with self._lock:
            self._closed.set()
            self._asked.set()
            if self._call is not None:
                self._call.cancel()
        self._thread.join()
        self._fail_all(failure(grpc.StatusCode.CANCELLED, "the stream is closed"))

    def score(
        self,
        request: ScoreRequest,
        *,
        timeout: float | None = None,
        traceparent: str = "",
        tracestate: str = "",
    ) -> ScoreResponse:
        """Score a prompt, within so many seconds and as a part of a trace. Raises KvatlasError."""
        answer = self.submit(
            request, timeout=timeout, traceparent=traceparent, tracestate=tracestate
        )
        return answer.result()

    def submit(
        self,
        request: ScoreRequest,
        *,
        timeout: float | None = None,
        traceparent: str = "",
        tracestate: str = "",
    ) -> Answer[ScoreResponse]:
        """Begin to score a prompt; waits only if there is no room. Raises KvatlasError."""
        message = ScoreStreamRequest(score=request, traceparent=traceparent, tracestate=tracestate)
        return self._ask(message, timeout)

    def record_routing(
        self,
        handle: bytes,
        pod: str,
        *,
        timeout: float | None = None,
        **options: Unpack[RoutingOptions],
    ) -> RecordRoutingResponse:
        """Record where a request was sent; for the options see RoutingOptions."""
        routing = routing_request(handle, pod, **options)
        answer: Answer[RecordRoutingResponse]
        answer = self._ask(ScoreStreamRequest(record_routing=routing), timeout)
        return answer.result()

    def report_outcome(
        self,
        handle: bytes,
        cached_tokens: int,
        *,
        timeout: float | None = None,
        **options: Unpack[OutcomeOptions],
    ) -> ReportOutcomeResponse:
        """Report what the engine had cached; for the options see OutcomeOptions."""
        outcome = outcome_request(handle, cached_tokens, **options)
        answer: Answer[ReportOutcomeResponse]
        answer = self._ask(ScoreStreamRequest(report_outcome=outcome), timeout)
        return answer.result()

    def _ask(self, message: ScoreStreamRequest, timeout: float | None) -> Answer[Any]:
        seconds = self._settings.seconds(timeout)
        ends_at = time.monotonic() + seconds
        if not self._room.acquire(timeout=seconds):
            raise self._late()
        future: Future[Any] = Future()
        future.add_done_callback(lambda _: self._room.release())
        with self._lock:
            pending = self._in_flight.begin(message, ends_at, future)
            self._outgoing.put(message)
            self._asked.set()
        if self._closed.is_set():
            self._fail_all(failure(grpc.StatusCode.CANCELLED, "the stream is closed"))
        return Answer(pending, self._give_up)

    def _give_up(self, pending: Pending) -> None:
        """Fail a request, unless it has its answer or is given it at this moment."""
        with self._lock:
            if (cancel := self._in_flight.give_up(pending)) is None:
                return
            self._outgoing.put(cancel)
        pending.fail(self._late())

    def _late(self) -> KvatlasError:
        why = "" if self._failure is None else f"; the stream was lost: {self._failure}"
        return failure(grpc.StatusCode.DEADLINE_EXCEEDED, f"no answer in time{why}")

    def _run(self) -> None:
        """Hold one call after the other."""
        backoff = Backoff(self._settings.retry)
        while not self._closed.is_set():
            error = self._converse(backoff)
            if error is None or error.code in LOST:
                self._closed.wait(backoff.pause())
            else:  # another call would fail likewise: it is made for the next request only
                self._asked.clear()
                self._fail_all(error)
                if not self._closed.is_set():
                    self._asked.wait()

    def _converse(self, backoff: Backoff) -> KvatlasError | None:
        """Repeat what was not answered, and take answers until the call ends: its error."""
        outgoing: _Outgoing = SimpleQueue()
        try:
            for answer in self._call_with(outgoing):
                backoff.reset()
                self._failure = None
                with self._lock:
                    pending = self._in_flight.take(answer)
                if pending is not None:
                    pending.answer(answer)
        except grpc.RpcError as error:
            self._failure = of_call(error)
            return self._failure
        except Exception as error:  # noqa: BLE001 - a closed channel, no token: told to who asks
            return failure(grpc.StatusCode.UNKNOWN, f"the stream cannot be opened: {error!r}")
        finally:
            outgoing.put(None)
        return None

    def _call_with(self, outgoing: _Outgoing) -> Any:
        """Return a new call that sends first what was not answered."""
        with self._lock:
            late = self._in_flight.take_late()
            for message in self._in_flight.unanswered():
                outgoing.put(message)
            self._outgoing = outgoing
            self._call = call = self._open_call(self._messages(outgoing))
            if self._closed.is_set():
                call.cancel()
        for pending in late:
            pending.fail(self._late())
        return call

    def _messages(self, outgoing: _Outgoing) -> Iterator[ScoreStreamRequest]:
        while (message := outgoing.get()) is not None:
            with self._lock:
                due = self._in_flight.is_due(message)
            if due:
                yield message

    def _fail_all(self, error: KvatlasError) -> None:
        with self._lock:
            pending = self._in_flight.take_all()
        for each in pending:
            each.fail(error)
