"""What can be wrong with a request, and the gRPC status each fault becomes.

`status_of` is the one table from errors to statuses; the servicers only raise.
"""

from __future__ import annotations

import grpc

from store import StoreError
from tokenization import (
    ChatError,
    TemplateBrokenError,
    TokenizationError,
    TokenizerBrokenError,
    TokenizerMissingError,
    TokenizersBusyError,
    UnsupportedChatError,
)


class RequestError(Exception):
    """Base of the faults of a request; the message is meant for the caller."""


class InvalidRequestError(RequestError):
    """Something in the request is missing or malformed, whatever the state of the service."""


class UnknownModelError(RequestError):
    """Nobody serves the model a request names."""

    def __init__(self, model: str, known: list[str]) -> None:
        names = ", ".join(sorted(known)) or "none yet: no pod has published an event"
        super().__init__(f"no pod serves model {model!r}; known models: {names}")
        self.model = model


class UnknownPodError(RequestError):
    """There is no pod of the name a request gives."""

    def __init__(self, pod: str) -> None:
        super().__init__(f"there is no pod {pod!r}; `kvatlas pods` lists those there are")
        self.pod = pod


class TooLargeError(RequestError):
    """A request beyond a configured limit."""


class NthRequestError(RequestError):
    """One of several requests failed, as it would have alone."""

    def __init__(self, index: int, cause: Exception) -> None:
        super().__init__(f"requests[{index}]: {cause}")
        self.cause = cause


_STATUSES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (InvalidRequestError, grpc.StatusCode.INVALID_ARGUMENT),
    (UnknownModelError, grpc.StatusCode.NOT_FOUND),
    (UnknownPodError, grpc.StatusCode.NOT_FOUND),
    (TooLargeError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (StoreError, grpc.StatusCode.UNAVAILABLE),
    (TokenizerMissingError, grpc.StatusCode.FAILED_PRECONDITION),
    (TokenizerBrokenError, grpc.StatusCode.FAILED_PRECONDITION),
    (TemplateBrokenError, grpc.StatusCode.FAILED_PRECONDITION),
    (TokenizersBusyError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (ChatError, grpc.StatusCode.INVALID_ARGUMENT),
    (UnsupportedChatError, grpc.StatusCode.UNIMPLEMENTED),
)
KNOWN_ERRORS = (RequestError, StoreError, TokenizationError)


def status_of(error: Exception) -> grpc.StatusCode:
    """The status a call that raised `error` ends with."""
    if isinstance(error, NthRequestError):
        return status_of(error.cause)
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return status
    return grpc.StatusCode.INTERNAL
