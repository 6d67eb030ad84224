"""The two calls of the API server, bounded in time and size."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import httpx2
from pydantic_core import from_json

from service.discovery.kubernetes.failures import ApiFailure, Reason, reason_of
from service.discovery.kubernetes.lines import LineBuffer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from service.discovery.kubernetes.access import Access

_MAX_REFUSAL = 64 * 1024  # bytes of an answer that says why not
_MAX_DETAIL = 300  # characters of it in the log
_MAX_RETRY_AFTER = 60.0

# A peer that is gone without a word is found out in half a minute, though a watch may be silent.
_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), seconds)
        for name, seconds in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    ),
]


@dataclass(frozen=True)
class ApiLimits:
    """What one answer may take."""

    timeout_seconds: float = 10.0
    """To connect and begin the answer to a watch; for the whole answer to a list."""
    answer_bytes: int = 32 * 1024**2
    """Of a page of a list."""
    line_bytes: int = 4 * 1024**2
    """Of an event of a watch: an object has at most 1.5 MiB or so."""


class ApiClient:
    """Asks one API server, over connections of its own. It asks no proxy and follows no redirect.

    Of two calls at the same time the second one may end the first: use one client for each.
    """

    def __init__(self, access: Access, limits: ApiLimits) -> None:
        self._access = access
        self._limits = limits
        self._tls = access.tls()
        self._client = self._connected()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.aclose()

    async def get(self, path: str, parameters: Mapping[str, str]) -> dict[str, Any]:
        """The answer, an object of JSON. Raises ApiFailure."""
        with _failures():
            async with asyncio.timeout(self._limits.timeout_seconds):
                async with self._opened(path, parameters) as response:
                    body = await _body(response, self._limits.answer_bytes)
        return decoded(body)

    @asynccontextmanager
    async def watch(
        self, path: str, parameters: Mapping[str, str], seconds: float
    ) -> AsyncIterator[Watch]:
        """An open watch, which the server should end after so many seconds. Raises ApiFailure."""
        async with AsyncExitStack() as stack:
            with _failures():
                async with asyncio.timeout(self._limits.timeout_seconds):
                    response = await stack.enter_async_context(self._opened(path, parameters))
            yield Watch(response, self._limits, seconds)

    @asynccontextmanager
    async def _opened(
        self, path: str, parameters: Mapping[str, str]
    ) -> AsyncIterator[httpx2.Response]:
        """An answer of which the body is not read yet."""
        await self._renew()
        # Uncompressed: an answer could not be bounded before it is unpacked.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        headers |= self._access.headers()
        url = self._access.url + path
        async with self._client.stream("GET", url, params=parameters, headers=headers) as response:
            if response.status_code != 200:
                raise await _refusal(response)
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise ApiFailure(Reason.MALFORMED, "the answer is compressed")
            yield response

    async def _renew(self) -> None:
        """Connect anew if certificates have changed."""
        tls = self._access.tls()
        if tls is not self._tls:
            self._tls = tls
            await self._client.aclose()
            self._client = self._connected()

    def _connected(self) -> httpx2.AsyncClient:
        transport = httpx2.AsyncHTTPTransport(
            verify=self._tls or False, trust_env=False, socket_options=_KEEPALIVE
        )
        return httpx2.AsyncClient(transport=transport, trust_env=False, timeout=None)


class Watch:
    """The events of an open watch."""

    def __init__(self, response: httpx2.Response, limits: ApiLimits, seconds: float) -> None:
        self._chunks = aiter(response.aiter_raw())
        self._buffer = LineBuffer(limits.line_bytes)
        now = asyncio.get_running_loop().time()
        self._ends_at = now + seconds + limits.timeout_seconds

    async def lines(self) -> list[bytes] | None:
        """The next events, as soon as there are any; None at the end. Raises ApiFailure."""
        with _failures():
            async with asyncio.timeout_at(self._ends_at):
                async for chunk in self._chunks:
                    if lines := self._buffer.feed(chunk):
                        return lines
        if self._buffer.is_within_line:
            raise ApiFailure(Reason.DISCONNECTED, "the watch ended within an event")
        return None


def decoded(text: bytes) -> dict[str, Any]:
    """The object that a JSON text means. Raises ApiFailure."""
    try:
        value = from_json(text)
    except ValueError as error:
        raise ApiFailure(Reason.MALFORMED, f"no JSON: {error}", is_stale=True) from error
    if not isinstance(value, dict):
        raise ApiFailure(Reason.MALFORMED, "no object of JSON", is_stale=True)
    return value


async def _body(response: httpx2.Response, limit: int) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit:
            raise ApiFailure(Reason.TOO_LARGE, f"an answer of more than {limit} bytes")
    return bytes(body)


async def _refusal(response: httpx2.Response) -> ApiFailure:
    """What a status other than 200 means; its body says it in words."""
    status = response.status_code
    try:
        message = str(decoded(await _body(response, _MAX_REFUSAL)).get("message", ""))
    except ApiFailure:
        message = ""
    after = response.headers.get("Retry-After", "")
    seconds = float(after[:6]) if after.isdecimal() and after.isascii() else 0.0
    detail = f"HTTP status {status}: {message}"[:_MAX_DETAIL]
    reason = reason_of(status)
    # After etcd was restored from a backup, versions may be smaller than before.
    is_stale = reason is Reason.REFUSED or "large resource version" in message.lower()
    return ApiFailure(reason, detail, min(seconds, _MAX_RETRY_AFTER), is_stale=is_stale)


@contextmanager
def _failures() -> Iterator[None]:
    """Raises what goes wrong with connections as ApiFailure."""
    try:
        yield
    except TimeoutError as error:
        raise ApiFailure(Reason.TIMEOUT, "no answer in time") from error
    except httpx2.ConnectError as error:
        reason = Reason.TLS if _is_tls(error) else Reason.UNREACHABLE
        raise ApiFailure(reason, str(error)[:_MAX_DETAIL]) from error
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        detail = f"{type(error).__name__}: {error}"[:_MAX_DETAIL]
        raise ApiFailure(Reason.DISCONNECTED, detail) from error


def _is_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
