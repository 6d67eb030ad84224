"""Bearer tokens: calls without one that the token file contains are refused."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

import grpc
from typing_extensions import override

from service.config import read_tokens
from service.listening.watched import WatchedFiles

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

_OPEN = "/grpc.health.v1.Health/"  # the probes of Kubernetes can send no token


class TokenCheck:
    """Knows which calls have a token.

    Args:
        name: of the listener, for the log.
        file: with one token a line; several while tokens are replaced.
        on_refused: is told why a call was refused.
    """

    def __init__(self, name: str, file: Path, on_refused: Callable[[str], None]) -> None:
        self._tokens = WatchedFiles(f"{name}.token_file", [file], lambda: read_tokens(file), 1.0)
        self._on_refused = on_refused

    def refusal_of(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
        """Return why a call of /service/method with this metadata is refused; None: it is not."""
        if method.startswith(_OPEN):
            return None
        given = _bearer(metadata)
        if given is None:
            self._on_refused("no_token")
            return "this listener needs a bearer token: authorization: Bearer <token>"
        if not self._is_known(given):
            self._on_refused("unknown_token")
            return "the bearer token is not known"
        return None

    def _is_known(self, given: bytes) -> bool:
        """Compare with every token, in a time that tells nothing about them."""
        known = [hmac.compare_digest(given, token) for token in self._tokens.content]
        return any(known)


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Refuses a call before its message is read. Args: tokens: decide."""

    def __init__(self, tokens: TokenCheck) -> None:
        self._tokens = tokens

    @override
    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        details = handler_call_details
        refusal = self._tokens.refusal_of(details.method, details.invocation_metadata)
        return await continuation(details) if refusal is None else _refusal(refusal)


def _bearer(metadata: Iterable[tuple[str, str | bytes]]) -> bytes | None:
    for key, value in metadata:
        if key == "authorization":
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            scheme, _, token = text.partition(" ")
            if scheme.lower() == "bearer":
                return token.strip().encode()
    return None


def _refusal(detail: str) -> Any:
    """A handler of any kind of call, which reads nothing of it."""

    async def refuse(_requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, detail)

    return grpc.stream_stream_rpc_method_handler(refuse)
