"""The faults of a request, and the gRPC status that every error becomes.

`status_of` holds the one table from errors to statuses; the servicers only raise.
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
    """A field of the request is missing or malformed."""


class UnknownModelError(RequestError):
    """No pod serves the model that the request names."""

    def __init__(self, model: str, known: list[str]) -> None:
        names = ", ".join(sorted(known)) or "none yet: no pod has published an event"
        super().__init__(f"no pod serves model {model!r}; known models: {names}")
        self.model = model


class UnknownPodError(RequestError):
    """There is no pod with the name that the request gives."""

    def __init__(self, pod: str) -> None:
        super().__init__(f"there is no pod {pod!r}; `kvatlas pods` lists all pods")
        self.pod = pod


class TooLargeError(RequestError):
    """The request is beyond a configured limit."""


class NthRequestError(RequestError):
    """One of several requests failed, with the status that it would have had alone."""

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
    """Return the status of a call that raised `error`."""
    if isinstance(error, NthRequestError):
        return status_of(error.cause)
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return status
    return grpc.StatusCode.INTERNAL
