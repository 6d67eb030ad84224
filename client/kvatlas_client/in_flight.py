"""The requests of a stream that have no answer yet: what is sent, and sent again."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import grpc
from kvatlas.v1.scoring_pb2 import ScoreStreamRequest

from kvatlas_client.errors import failure, of_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvatlas.v1.scoring_pb2 import ScoreStreamResponse

    from kvatlas_client.errors import KvatlasError

_MOST_MILLISECONDS = 2**32 - 1


class Future(Protocol):
    """What asyncio's futures and those of threads have in common."""

    def done(self) -> bool:
        """Return whether there is a result, or nobody waits for one any more."""

    def set_result(self, result: Any, /) -> None:
        """Give the result to whoever waits for it."""

    def set_exception(self, error: Any, /) -> None:
        """Raise an error in whoever waits."""


@dataclass(eq=False, slots=True)
class Pending:
    """A request without an answer."""

    message: ScoreStreamRequest
    ends_at: float
    """When its time is over, as the clock says."""
    future: Future

    def answer(self, answer: ScoreStreamResponse) -> None:
        """Give the answer, or the error in it, to whoever waits."""
        kind = answer.WhichOneof("result")
        if kind == "error":
            self.fail(of_answer(answer.error))
        elif kind is None:
            self.fail(failure(grpc.StatusCode.UNIMPLEMENTED, "an answer of an unknown kind"))
        elif not self.future.done():
            self.future.set_result(getattr(answer, kind))

    def fail(self, error: KvatlasError) -> None:
        """Raise an error in whoever waits."""
        if not self.future.done():
            self.future.set_exception(error)


class InFlight:
    """The requests of a stream that have no answer yet. Several threads need a lock around it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._numbers = itertools.count(1)
        self._pending: dict[int, Pending] = {}  # in the order in which they were asked

    def __len__(self) -> int:
        """The number of requests without an answer."""
        return len(self._pending)

    def begin(self, message: ScoreStreamRequest, ends_at: float, future: Future) -> Pending:
        """Give a request its id; it has no answer from now on."""
        message.id = next(self._numbers)
        pending = self._pending[message.id] = Pending(message, ends_at, future)
        return pending

    def is_due(self, message: ScoreStreamRequest) -> bool:
        """Whether to send a message now; a request is told how much of its time is left.

        A request is not sent if somebody has given it up, or its time is over.
        """
        if message.WhichOneof("action") == "cancel":
            return True
        pending = self._pending.get(message.id)
        if pending is None:
            return False
        left = math.ceil((pending.ends_at - self._clock()) * 1000)
        message.timeout_ms = min(max(left, 0), _MOST_MILLISECONDS)
        return left > 0

    def take(self, answer: ScoreStreamResponse) -> Pending | None:
        """Return the request that an answer is for, which is no longer in flight."""
        return self._pending.pop(answer.id, None)

    def give_up(self, pending: Pending) -> ScoreStreamRequest | None:
        """Forget a request: the message that says so; None if it has its answer."""
        if self._pending.pop(pending.message.id, None) is None:
            return None
        return ScoreStreamRequest(id=pending.message.id, cancel=True)

    def unanswered(self) -> list[ScoreStreamRequest]:
        """Return the messages of all requests in flight, to send them on another call."""
        return [pending.message for pending in self._pending.values()]

    def take_late(self) -> list[Pending]:
        """Return the requests whose time is over; they are no longer in flight."""
        now = self._clock()
        late = [pending for pending in self._pending.values() if pending.ends_at <= now]
        for pending in late:
            del self._pending[pending.message.id]
        return late

    def take_all(self) -> list[Pending]:
        """Return all requests; none is in flight any more."""
        pending = list(self._pending.values())
        self._pending.clear()
        return pending
