"""HTTP to an engine: few requests, bounded in time and bytes, to no other host than its own."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import TYPE_CHECKING, Any

import httpx2

from service.config import read_tokens
from service.engines.facts import EngineAnswerError

if TYPE_CHECKING:
    from pathlib import Path

_MOST_JSON_BYTES = 1024**2
_MOST_TEXT_BYTES = 8 * 1024**2
_MOST_CONNECTIONS = 32


class EngineHttp:
    """Asks engines, a few at a time, until it is closed.

    Proxies and credentials that the environment names are not used, and redirects not followed.
    Answers must not be compressed: a few bytes could become gigabytes.

    Args:
        timeout: seconds for a request, from its beginning to the last byte of its answer; while
            others are asked, it has not begun.
        token_file: its first token is sent; it is read anew for each request. None: none is sent.
        ca_file: authorities that https is trusted by; None: those of the system.
    """

    def __init__(
        self, timeout: float, token_file: Path | None = None, ca_file: Path | None = None
    ) -> None:
        self._timeout = timeout
        self._token_file = token_file
        self._turns = asyncio.Semaphore(_MOST_CONNECTIONS)
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        self._client = httpx2.AsyncClient(
            verify=context,
            trust_env=False,
            follow_redirects=False,
            timeout=timeout,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
            headers={
                "user-agent": "kvatlas",
                "accept": "application/json, text/plain",
                "accept-encoding": "identity",
            },
        )

    async def close(self) -> None:
        """Ask nobody any more."""
        await self._client.aclose()

    async def get(self, url: str, most_bytes: int) -> tuple[int, bytes]:
        """The status and the body of an answer. Raises EngineAnswerError."""
        try:
            async with (
                self._turns,
                asyncio.timeout(self._timeout),
                self._client.stream("GET", url, headers=self._headers()) as response,
            ):
                return response.status_code, await _body(response, most_bytes)
        except (httpx2.HTTPError, OSError) as error:  # TimeoutError is one
            detail = str(error) or type(error).__name__
            is_late = isinstance(error, TimeoutError | httpx2.TimeoutException)
            why = "timeout" if is_late else "unreachable"
            raise EngineAnswerError(why, f"GET {url}: {detail}") from error

    def _headers(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        try:
            token = read_tokens(self._token_file)[0].decode()
            if not token.isprintable():  # HTTP would quote it as it refuses it
                raise ValueError(f"{self._token_file} contains a token with control characters")
        except (OSError, ValueError) as error:
            raise EngineAnswerError("no_token", f"discovery.token_file: {error}") from error
        return {"authorization": f"Bearer {token}"}


async def _body(response: httpx2.Response, most_bytes: int) -> bytes:
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise EngineAnswerError("compressed", f"GET {response.url}: the answer is compressed")
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > most_bytes:
            raise EngineAnswerError("too_long", f"GET {response.url}: more than {most_bytes} bytes")
    return bytes(body)


class EngineAnswers:
    """The answers of one engine.

    Args:
        http: how it is asked.
        url: where it serves: http://10.0.0.1:8000.
    """

    def __init__(self, http: EngineHttp, url: str) -> None:
        self._http = http
        self._url = url

    async def json(self, path: str) -> Any:
        """The JSON at `path`. Raises EngineAnswerError."""
        found = await self.json_if_any(path)
        if found is None:
            raise EngineAnswerError("not_found", f"GET {self._url}{path}: 404")
        return found

    async def json_if_any(self, path: str) -> Any:
        """The JSON at `path`; None if the engine has no such path. Raises EngineAnswerError."""
        body = await self._get(path, _MOST_JSON_BYTES)
        if body is None:
            return None
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise EngineAnswerError("malformed", f"GET {self._url}{path}: no JSON") from error

    async def text_if_any(self, path: str) -> str | None:
        """The text at `path`; None if the engine has no such path. Raises EngineAnswerError."""
        body = await self._get(path, _MOST_TEXT_BYTES)
        return None if body is None else body.decode(errors="replace")

    async def _get(self, path: str, most_bytes: int) -> bytes | None:
        status, body = await self._http.get(self._url + path, most_bytes)
        if status == 404:
            return None
        if status in {401, 403}:
            raise EngineAnswerError(
                "unauthorized",
                f"GET {self._url}{path}: {status}; discovery.token_file has the engine's API key",
            )
        if status != 200:
            raise EngineAnswerError("status", f"GET {self._url}{path}: {status}")
        return body
