"""Asks a kvatlas service which pod holds how much of a prompt, and tells it what became of it.

It needs grpcio and protobuf, and nothing of the service. Messages are those of `kvatlas.v1`.

    requests        prompts and their options -> ScoreRequest and the like
    sync_client     Client: one call for each method
    async_client    AsyncClient: the same for asyncio
    sync_stream     ScoreStream: many requests under way on one stream, from any thread
    async_stream    AsyncScoreStream: the same for asyncio
    in_flight       the requests of a stream that have no answer yet
    calls           the methods, and what all calls of a client share
    channels        addresses, TLS and balancing -> a gRPC channel
    retries         Retry: how often, and after which pauses
    errors          what can go wrong, as exceptions with a code, a reason and a limit
    error_info      status details of a failed call -> reason and limit
    version         the version of this package
"""

from __future__ import annotations

from kvatlas_client.async_client import AsyncClient
from kvatlas_client.async_stream import AsyncScoreStream
from kvatlas_client.channels import Tls
from kvatlas_client.errors import (
    DeadlineError,
    InvalidRequestError,
    KvatlasError,
    LimitError,
    NotFoundError,
    UnavailableError,
)
from kvatlas_client.requests import (
    OutcomeOptions,
    RoutingOptions,
    ScoreOptions,
    outcome_request,
    prompt,
    routing_request,
    score_request,
)
from kvatlas_client.retries import Retry
from kvatlas_client.sync_client import Client
from kvatlas_client.sync_stream import Answer, ScoreStream
from kvatlas_client.version import __version__

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncScoreStream",
    "Client",
    "DeadlineError",
    "InvalidRequestError",
    "KvatlasError",
    "LimitError",
    "NotFoundError",
    "OutcomeOptions",
    "Retry",
    "RoutingOptions",
    "ScoreOptions",
    "ScoreStream",
    "Tls",
    "UnavailableError",
    "__version__",
    "outcome_request",
    "prompt",
    "routing_request",
    "score_request",
]
