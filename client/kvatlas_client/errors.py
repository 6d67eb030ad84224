"""What can go wrong with a call, as exceptions that carry a code, a reason and a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from kvatlas_client.error_info import ErrorInfo, error_info

if TYPE_CHECKING:
    from kvatlas.v1.routing_pb2 import ScoreError


class KvatlasError(Exception):
    """A call, or one of several requests, has failed. Some codes have subclasses."""

    def __init__(
        self, code: grpc.StatusCode, message: str, reason: str = "", limit: str = ""
    ) -> None:
        super().__init__(code, message, reason, limit)
        self.code = code
        """The status of gRPC, such as NOT_FOUND."""
        self.message = message
        """What is wrong, for people."""
        self.reason = reason
        """What is wrong, for programs: one word such as MODEL_UNKNOWN. Empty: it is not known."""
        self.limit = limit
        """The setting whose limit is exceeded, such as limits.prompt_tokens. Empty: none is."""

    def __str__(self) -> str:
        """The code and the message; the reason if there is one."""
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.code.name}{reason}: {self.message}"


class UnavailableError(KvatlasError):
    """The service cannot be reached, is stopping, or cannot reach its store (UNAVAILABLE)."""


class DeadlineError(KvatlasError):
    """There was no answer in time (DEADLINE_EXCEEDED)."""


class InvalidRequestError(KvatlasError):
    """The request is malformed, or the model server would refuse it too (INVALID_ARGUMENT)."""


class NotFoundError(KvatlasError):
    """The model, the pod or the handle is unknown (NOT_FOUND); the reason says which."""


class LimitError(KvatlasError):
    """The request is too large, or the service is too busy (RESOURCE_EXHAUSTED).

    `limit` names the setting that it exceeds.
    """


_CLASSES: dict[grpc.StatusCode, type[KvatlasError]] = {
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitError,
}
_NO_INFO = ErrorInfo()
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def failure(code: grpc.StatusCode, message: str, info: ErrorInfo = _NO_INFO) -> KvatlasError:
    """Return the error of a code."""
    return _CLASSES.get(code, KvatlasError)(code, message, info.reason, info.limit)


def of_call(error: grpc.RpcError) -> KvatlasError:
    """Return the error that a failed call means."""
    status: Any = error  # what is raised has the methods of a grpc.Call too
    code = status.code() or grpc.StatusCode.UNKNOWN
    return failure(code, status.details() or "", error_info(status.trailing_metadata()))


def of_answer(error: ScoreError) -> KvatlasError:
    """Return the error that an answer holds in place of a result."""
    code = _CODES.get(error.code, grpc.StatusCode.UNKNOWN)
    return failure(code, error.message, ErrorInfo(error.reason, error.limit))
