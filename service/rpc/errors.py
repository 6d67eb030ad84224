"""The faults of a request, and the gRPC status and the reason that every error becomes.

`kind_of` looks in the one table from errors to statuses; the servicers only raise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import grpc

from kvevents import TooManyRecordersError
from service.discovery import TooManyPodsError
from service.routing import (
    HandleUnknownError,
    NotRoutedError,
    OutcomeError,
    PodAmbiguousError,
    RoutingError,
    SpeculationFullError,
    UnknownRankError,
)
from service.rpc.near_names import near_names, shortened
from service.watching import TooManyWatchersError
from store import StoreError
from tokenization import (
    CallerGoneError,
    ChatError,
    TemplateBrokenError,
    TemplateLimitError,
    TokenizationError,
    TokenizerBrokenError,
    TokenizerMissingError,
    TokenizersBusyError,
    UnsupportedChatError,
)

if TYPE_CHECKING:
    from collections.abc import Collection

_LISTED = 8  # names of models that an error lists; of more it names the nearest


class RequestError(Exception):
    """Base of the faults of a request; the message is meant for the caller."""


class InvalidRequestError(RequestError):
    """A field of the request is missing or malformed."""


class UndecodableRequestError(RequestError):
    """The bytes of the request are not a message of its type."""

    def __init__(self, message_type: str) -> None:
        super().__init__(f"the request is not a {message_type}: its bytes cannot be decoded")


class UnknownModelError(RequestError):
    """No pod serves the model that the request names."""

    def __init__(self, model: str, known: Collection[str]) -> None:
        name = shortened(model)
        if not known:
            hint = "known models: none yet: no pod has published an event"
        elif len(known) <= _LISTED:
            hint = f"known models: {', '.join(shortened(each) for each in sorted(known))}"
        else:
            near = " or ".join(repr(shortened(each)) for each in near_names(model, known))
            hint = f"{len(known)} models are known" + (f"; did you mean {near}?" if near else "")
        super().__init__(f"no pod serves model {name!r}; {hint}")
        self.model = name


class ModelNameError(RequestError):
    """The model's name is longer than the name of a file, and nobody has configured it."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"there is no model {shortened(model)!r}: its name has {len(model.encode())} bytes"
        )


class UnknownPodError(RequestError):
    """There is no pod with the name that the request gives."""

    def __init__(self, pod: str, known: Collection[str] = ()) -> None:
        name = shortened(pod)
        near = " or ".join(repr(shortened(each)) for each in near_names(pod, known))
        hint = f"did you mean {near}? " if near else ""
        super().__init__(f"there is no pod {name!r}; {hint}`kvatlas pods` lists all pods")
        self.pod = name


class RegistrationOffError(RequestError):
    """Pods cannot be registered here."""

    def __init__(self) -> None:
        super().__init__("pods cannot be registered: set discovery.registration = true")


class LimitError(RequestError):
    """Base of the errors of a request beyond a configured limit."""

    def __init__(self, message: str, limit: str) -> None:
        super().__init__(f"{message} (limits.{limit})" if limit else message)
        self.limit = limit
        """The setting in the section `limits`; empty if the limit cannot be set."""


class TooLargeError(LimitError):
    """The request, or its answer, is beyond a limit; sent again it would be so again."""


class CallTooLargeError(TooLargeError):
    """All prompts of a call together, or their answers, are beyond a limit."""


class TooBusyError(LimitError):
    """Too many requests are under way; sent again later it may be answered."""


class DeadlineOverError(RequestError):
    """The caller's deadline is over, so that nobody waits for the answer."""

    def __init__(self) -> None:
        super().__init__("the deadline of the call is over")


class ErrorKind(NamedTuple):
    """What callers are told of all errors of one kind."""

    status: grpc.StatusCode
    reason: str
    """The reason in `google.rpc.ErrorInfo`."""


_KINDS: tuple[tuple[type[Exception], grpc.StatusCode, str], ...] = (
    (InvalidRequestError, grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID"),
    (UndecodableRequestError, grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_UNDECODABLE"),
    (UnknownModelError, grpc.StatusCode.NOT_FOUND, "MODEL_UNKNOWN"),
    (ModelNameError, grpc.StatusCode.NOT_FOUND, "MODEL_UNKNOWN"),
    (UnknownPodError, grpc.StatusCode.NOT_FOUND, "POD_UNKNOWN"),
    (RegistrationOffError, grpc.StatusCode.FAILED_PRECONDITION, "REGISTRATION_OFF"),
    (TooManyPodsError, grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_PODS"),
    (TooLargeError, grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED"),
    (TooManyRecordersError, grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_RECORDINGS"),
    (TooManyWatchersError, grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS"),
    (TooBusyError, grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS"),
    (DeadlineOverError, grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_OVER"),
    (HandleUnknownError, grpc.StatusCode.NOT_FOUND, "HANDLE_UNKNOWN"),
    (UnknownRankError, grpc.StatusCode.NOT_FOUND, "POD_UNKNOWN"),
    (OutcomeError, grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID"),
    (NotRoutedError, grpc.StatusCode.NOT_FOUND, "NOT_ROUTED"),
    (PodAmbiguousError, grpc.StatusCode.FAILED_PRECONDITION, "POD_AMBIGUOUS"),
    (SpeculationFullError, grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED"),
    (StoreError, grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"),
    (TokenizerMissingError, grpc.StatusCode.FAILED_PRECONDITION, "TOKENIZER_MISSING"),
    (TokenizerBrokenError, grpc.StatusCode.FAILED_PRECONDITION, "TOKENIZER_BROKEN"),
    (TemplateBrokenError, grpc.StatusCode.FAILED_PRECONDITION, "TEMPLATE_BROKEN"),
    (TokenizersBusyError, grpc.StatusCode.RESOURCE_EXHAUSTED, "TOKENIZERS_BUSY"),
    (TemplateLimitError, grpc.StatusCode.RESOURCE_EXHAUSTED, "TEMPLATE_LIMIT"),
    (CallerGoneError, grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_OVER"),
    (ChatError, grpc.StatusCode.INVALID_ARGUMENT, "PROMPT_REFUSED"),
    (UnsupportedChatError, grpc.StatusCode.UNIMPLEMENTED, "PROMPT_UNSUPPORTED"),
)
KNOWN_ERRORS = (
    RequestError,
    RoutingError,
    StoreError,
    TokenizationError,
    TooManyPodsError,
    TooManyRecordersError,
    TooManyWatchersError,
)


def kind_of(error: Exception) -> ErrorKind:
    """Return what callers are told of `error`."""
    for kind, status, reason in _KINDS:
        if isinstance(error, kind):
            return ErrorKind(status, reason)
    return ErrorKind(grpc.StatusCode.INTERNAL, "INTERNAL")
