"""The bounds of every call: admission, the shape of its message, the size of its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import structlog
from google.protobuf.message import DecodeError, Message

from service.rpc.bounds.call_admission import CallAdmission
from service.rpc.bounds.message_shape import MessageShape
from service.rpc.bounds.refusal import refusal_of
from service.rpc.bounds.turns import LongWork, Turns
from service.rpc.errors import DeadlineOverError, TooLargeError, UndecodableRequestError

if TYPE_CHECKING:
    import grpc
    from google.protobuf.descriptor import Descriptor

    from service.config import LimitsSection
    from service.metrics import CallMetrics
    from service.rpc.bounds.refusal import Refusal

_log = structlog.get_logger("kvatlas.service")


class CallBounds:
    """What all calls of some services may take, together and each; counts what is refused."""

    def __init__(self, limits: LimitsSection, metrics: CallMetrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self.admission = CallAdmission(limits)
        self.turns = Turns()
        self.stream_requests = metrics.stream_requests
        """Counts the requests within streams."""

    async def check_large(
        self, kind: type[Message], raw: bytes, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Count the fields of a request of more than LARGE_BYTES, before it is decoded.

        Raises:
            TooLargeError: it has too many fields of a kind.
            DeadlineOverError: the caller's deadline is over.
        """
        if context.time_remaining() == 0:
            raise DeadlineOverError
        shape = MessageShape(self._limits, LongWork(self.turns, context))
        await shape.check(raw, cast("Descriptor", kind.DESCRIPTOR))

    def refuse(self, error: Exception, method: str) -> Refusal:
        """Return what the caller of `method` is told of `error`, and count it by its reason."""
        refusal = refusal_of(error, method)
        first = self._metrics.refused(refusal.reason, refusal.limit)
        if first and refusal.limit:
            _log.warning(
                "limit_exceeded",
                limit=f"limits.{refusal.limit}",
                method=method,
                detail="said once; kvatlas_limits_exceeded counts how often",
            )
        return refusal

    def read(self, kind: type[Message], raw: bytes) -> Any:
        """Decode a request. Raises UndecodableRequestError if it is no message of this kind."""
        try:
            return kind.FromString(raw)
        except DecodeError:
            raise UndecodableRequestError(kind.DESCRIPTOR.full_name) from None

    def write(self, answer: Message | bytes) -> bytes:
        """Encode an answer. Raises TooLargeError for one beyond `limits.answer_bytes`."""
        raw = answer if isinstance(answer, bytes) else answer.SerializeToString()
        self.check_answer(raw)
        return raw

    def check_answer(self, raw: bytes) -> None:
        """Raise TooLargeError for an encoded answer beyond `limits.answer_bytes`."""
        limit = self._limits.answer_bytes
        if len(raw) > limit:
            raise TooLargeError(
                f"the answer has {len(raw)} bytes, the limit is {limit}", "answer_bytes"
            )
